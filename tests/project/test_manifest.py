from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from tests.project.manifests import check, ephemeral, macro, manifest, model, source, view
from tests.project.projects import write_project

from t2.errors import DbtError, Problem, ProjectError
from t2.project.manifest import read_manifest
from t2.project.model import Grain, Partitioning, Project, Upstream

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def read(*nodes: dict[str, Any], root: Path = Path("nowhere"), **more: Any) -> Project:
    return read_manifest(manifest(*nodes, **more), root=root, now=NOW)


def problems(*nodes: dict[str, Any], root: Path = Path("nowhere")) -> list[Problem]:
    with pytest.raises(ProjectError) as raised:
        read(*nodes, root=root)
    return list(raised.value.problems)


def upstreams(project: Project) -> dict[str, tuple[Upstream, ...]]:
    return {key: table.upstreams for key, table in project.tables.items()}


def test_a_table_reached_by_several_ways_has_the_largest_lookback_and_the_shortest_way() -> None:
    project = read(
        model("base"),
        view("one", ["base"], event_time="day"),
        ephemeral("two", ["one"]),
        model("reader", ["two", "base"], t2={"upstream": {"two": {"lookback": 3}, "base": {"lookback": 1}}}),
    )

    assert upstreams(project)["main/reader"] == (
        Upstream("main/base", 3),
        Upstream("main/one", 3, ("two",)),
    )


def test_views_on_views_are_all_looked_through() -> None:
    project = read(source("rows"), view("a", ["source.shop.raw.rows"]), view("b", ["a"]), view("c", ["b"]))

    assert upstreams(project)["main/c"] == (
        Upstream("main/b"),
        Upstream("main/a", 0, ("b",)),
        Upstream("raw/rows", 0, ("b", "a")),
    )


def test_many_layers_of_views_that_read_each_other_are_read_in_no_time() -> None:
    layers = [view("v0_0"), view("v0_1")]
    for depth in range(1, 40):
        layers += [view(f"v{depth}_{side}", [f"v{depth - 1}_0", f"v{depth - 1}_1"]) for side in (0, 1)]

    assert len(upstreams(read(*layers))["main/v39_0"]) == 78


def test_a_self_reference_is_the_last_upstream() -> None:
    project = read(model("base"), model("own", ["base"], t2={"upstream": {"own": {"lookback": 2}}}))

    assert upstreams(project)["main/own"] == (Upstream("main/base"), Upstream("main/own", 2))
    assert project.tables["main/own"].reads_itself


def test_a_self_reference_with_lookback_0_is_a_problem() -> None:
    found = problems(model("own", t2={"upstream": {"own": {"lookback": 0}}}))

    assert found == [
        Problem(
            "models/own.sql:1",
            "own reads itself with lookback 0, so it reads nothing",
            "a self reference needs a lookback of 1 or more",
        )
    ]


def test_a_broken_upstream_is_reported_once_and_not_by_its_readers() -> None:
    found = problems(
        model("base", begin=None),
        model("reader", ["base"], t2={"upstream": {"base": {"lookback": 1}}}, code="{{ t2.window('base') }}"),
    )

    assert [problem.message for problem in found] == ["base has a batch_size but no begin"]


@pytest.mark.parametrize(
    ("begin", "zone", "expected"),
    [
        ("2024-03-15", "UTC", datetime(2024, 3, 15)),
        ("2024-03-15T23:30:00Z", "Asia/Tokyo", datetime(2024, 3, 16)),
        (datetime(2024, 3, 15, 12), "UTC", datetime(2024, 3, 15)),
    ],
)
def test_begin_is_a_wall_time_and_an_offset_is_converted(
    begin: object, zone: str, expected: datetime
) -> None:
    project = read(model("a", t2={"timezone": zone}, begin=begin))

    assert project.tables["main/a"].partitioning == Partitioning(Grain.DAY, expected, "day", zone)


def test_a_view_with_a_folders_batch_size_has_no_partitions() -> None:
    table = read(view("a")).tables["main/a"]

    assert (table.partitioning, table.event_time) == (None, "day")


def test_a_test_of_an_ephemeral_model_nobody_reads_is_no_check() -> None:
    project = read(model("a"), ephemeral("alone", ["a"]), check("lonely", "alone"))

    assert project.tables["main/a"].tests == ()


def test_check_names_are_unique_and_valid_in_a_table() -> None:
    twins = [check("twin", "a"), {**check("twin", "a"), "unique_id": "test.shop.twin.2"}]

    names = [test.name for test in read(model("a"), check("über-all", "a"), *twins).tables["main/a"].tests]
    assert names == ["twin", "twin_e1862aad", "_ber_all_32cf8d9d"]


def test_a_manifest_of_another_version_is_not_read() -> None:
    other = manifest(model("a"))
    other["metadata"]["dbt_schema_version"] = "https://schemas.getdbt.com/dbt/manifest/v11.json"

    with pytest.raises(DbtError, match=r"manifest/v11.json'; T2 reads .*manifest/v12.json"):
        read_manifest(other, root=Path("nowhere"), now=NOW)


def test_jinja_in_a_hidden_folder_setting_is_a_problem(tmp_path: Path) -> None:
    project_yml = "name: shop\nmodels:\n  +meta:\n    t2:\n      timezone: \"{{ var('zone') }}\"\n"
    root = write_project(tmp_path, {"dbt_project.yml": project_yml})

    assert problems(model("a", t2={"owner": "me"}), root=root) == [
        Problem(
            "dbt_project.yml:5",
            "meta.t2.timezone holds Jinja that a deeper meta.t2 hides from dbt",
            "write the value plainly here, or repeat it where meta.t2 is set",
        )
    ]
    assert read(model("a", t2={"timezone": "Asia/Tokyo"}), root=root)


def test_packages_nodes_are_found_in_their_own_folder(tmp_path: Path) -> None:
    root = write_project(
        tmp_path,
        {
            "dbt_project.yml": "name: shop\nmodels: {other: {+meta: {t2: {retries: {attempts: 5}}}}}\n",
            "dbt_packages/other_folder/dbt_project.yml": """
                name: other
                models: {+meta: {t2: {owner: them}}}
                """,
        },
    )
    node = {**model("a", t2={"retries": {"attempts": 5}}), "package_name": "other", "fqn": ["other", "a"]}

    table = read(node, root=root).tables["main/a"]
    assert (table.file, table.owners, table.retries.attempts) == (
        "dbt_packages/other_folder/models/a.sql",
        ("team:them",),
        5,
    )


CHANGES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "description": {"description": "other words"},
    "tags": {"tags": ["new"]},
    "config call": {"raw_code": "{{ config(tags=['a', ')'], meta={}) }}select {{ one() }}"},
    "code": {"raw_code": "select 2, {{ one() }}"},
    "unique_key": {"config": {"unique_key": "id"}},
    "hook": {"config": {"post-hook": [{"sql": "vacuum"}]}},
    "lookback": {"config": {"meta": {"t2": {"upstream": {"eph": {"lookback": 1}}}}}},
    "begin": {"config": {"begin": "2024-02-01"}},
    "owner": {"config": {"meta": {"t2": {"owner": "them"}}}},
}


def code_version(change: dict[str, Any], macro_sql: str = "1", ephemeral_code: str = "select 1") -> str:
    node = model("a", ["eph"], code="{{ config(tags=['x']) }}select {{ one() }}", macros=["one"])
    changed = {**node, **change, "config": {**node["config"], **change.get("config", {})}}
    nodes = (model("base"), ephemeral("eph", ["base"], code=ephemeral_code), changed)
    macros = (macro("one", "{{ two() }}", "two"), macro("two", macro_sql))
    return read(*nodes, macros=macros).tables["main/a"].code_version


def test_the_code_version_changes_with_what_changes_the_data_only() -> None:
    before = code_version({})

    assert {name for name, change in CHANGES.items() if code_version(change) != before} == {
        *("code", "unique_key", "hook", "lookback", "begin"),
    }
    assert code_version({}, macro_sql="2") != before
    assert code_version({}, ephemeral_code="select 2") != before
    assert len(before) == 16


def test_a_large_seeds_code_version_follows_its_content(tmp_path: Path) -> None:
    seed = model("names", kind="seed", batch_size=None, event_time=None)
    seed |= {"checksum": {"name": "path", "checksum": "seeds/names.csv"}}
    seed |= {"original_file_path": "seeds/names.csv"}
    versions = []
    for content in ("a\n1\n", "a\n2\n"):
        write_project(tmp_path, {"seeds/names.csv": content})
        versions.append(read(seed, root=tmp_path).tables["main/names"].code_version)

    assert versions[0] != versions[1]


def test_a_variables_value_is_part_of_the_code(tmp_path: Path) -> None:
    versions = []
    for value in ("EUR", "USD"):
        write_project(tmp_path, {"dbt_project.yml": f"name: shop\nvars: {{shop: {{currency: {value}}}}}\n"})
        node = model("a", code="select '{{ var('currency') }}'")
        versions.append(read(node, root=tmp_path).tables["main/a"].code_version)

    assert versions[0] != versions[1]
