"""Strategies and rules of merges as they are declared: mistakes are found before anything runs."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from tests.project.manifests import manifest, model

from t2.errors import ProjectError
from t2.project.manifest import read_manifest
from t2.project.model import Table

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
RULES = {"least": "least", "greatest": "greatest"}


def read(**config: Any) -> Table:
    columns = {name: {"name": name, "data_type": None} for name in config.pop("columns", ())}
    node = {**model("orders", **config), "columns": columns}
    return read_manifest(manifest(node), root=Path("nowhere"), now=NOW).tables["main/orders"]


def problems(**config: Any) -> list[tuple[str, str | None]]:
    with pytest.raises(ProjectError) as raised:
        read(**config)
    return [(problem.message, problem.hint) for problem in raised.value.problems]


def test_an_unknown_strategy_is_reported_with_the_valid_ones_and_the_nearest() -> None:
    message = "incremental_strategy is {!r}; partitioned tables know insert_overwrite, append, merge"
    assert problems(incremental_strategy="overwrite") == [
        (message.format("overwrite"), "did you mean insert_overwrite?")
    ]
    assert problems(incremental_strategy="microbach") == [(message.format("microbach"), None)]


def test_dbts_own_materializations_keep_their_strategies() -> None:
    assert not read(materialized="incremental", incremental_strategy="delete+insert").merges


def test_a_merge_needs_a_key() -> None:
    assert problems(incremental_strategy="merge") == [
        ("a merge needs unique_key", "name the column or columns that identify a row")
    ]


def test_a_rule_is_one_of_four_words() -> None:
    wrong = {"merge": {"seen": "greatst"}}
    assert problems(incremental_strategy="merge", unique_key="id", t2=wrong) == [
        (
            "meta.t2.merge.seen is 'greatst'; expected least, greatest, keep or replace",
            "did you mean greatest?",
        )
    ]


def test_a_key_has_no_rule() -> None:
    rules = {"merge": {"ID": "least"}}
    assert problems(incremental_strategy="merge", unique_key=["id"], t2=rules) == [
        ("meta.t2.merge.ID: ID is part of unique_key, which a merge never changes", None)
    ]


def test_rules_without_a_merge_are_reported() -> None:
    rules = {"merge": {"seen": "least"}}
    assert problems(t2=rules) == [
        ("meta.t2.merge needs incremental_strategy: merge", "remove one of the two")
    ]
    assert problems(materialized="table", batch_size=None, t2=rules) == [
        ("meta.t2.merge needs materialized: partitioned", "remove one of the two")
    ]


def test_dbts_two_ways_to_choose_columns_exclude_each_other() -> None:
    both = {"merge_update_columns": ["a"], "merge_exclude_columns": ["b"]}
    assert problems(incremental_strategy="merge", unique_key="id", **both) == [
        ("merge_update_columns and merge_exclude_columns exclude each other", "keep one of them")
    ]


@pytest.mark.parametrize(
    ("key", "columns", "in_order"),
    [
        ("id", ["id", "least", "greatest"], False),
        (["ID", "Least"], ["id", "least", "greatest"], False),
        ("id", ["id", "least", "greatest", "replaced"], True),
        ("id", [], True),
        (["id", "day"], ["id", "day", "replaced"], False),  # no two partitions share a row
    ],
)
def test_a_merge_goes_in_order_unless_no_order_can_matter(
    key: str | list[str], columns: list[str], in_order: bool
) -> None:
    rules = {} if "Least" in key else {"merge": RULES}
    rules = {"merge": {"greatest": "greatest"}} if "Least" in key else rules
    table = read(incremental_strategy="merge", unique_key=key, columns=columns, t2=rules)
    assert (table.merges, table.merges_in_order) == (True, in_order)


def test_rules_are_part_of_the_code_version() -> None:
    merge = {"incremental_strategy": "merge", "unique_key": "id"}
    versions = [
        read(**merge).code_version,
        read(**merge, t2={"merge": {"seen": "least"}}).code_version,
        read(**merge, t2={"merge": {"seen": "greatest"}}).code_version,
        read(**merge, merge_exclude_columns=["seen"]).code_version,
    ]
    assert len(set(versions)) == 4
    assert read(**merge).code_version == versions[0]


def test_rules_of_a_folder_that_dbt_cannot_see_are_reported(tmp_path: Path) -> None:
    """dbt replaces meta.t2 as a whole, T2 merges it: the macros would not know the rules."""
    (tmp_path / "dbt_project.yml").write_text(
        "name: shop\nmodels: {shop: {+meta: {t2: {merge: {seen: least}}}}}\n"
    )
    node = model("orders", incremental_strategy="merge", unique_key="id", t2={"owner": "team"})
    with pytest.raises(ProjectError) as raised:
        read_manifest(manifest(node), root=tmp_path, now=NOW)
    assert [problem.message for problem in raised.value.problems] == [
        "meta.t2.merge of a folder is hidden from dbt by the model's own meta.t2"
    ]
