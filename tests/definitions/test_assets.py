from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import dagster as dg

from t2.definitions.build import build_defs
from t2.project.model import Grain, Partitioning, Project, Table, Upstream


def specs(project: Project) -> dict[str, dg.AssetSpec]:
    graph = build_defs(project).resolve_asset_graph()
    return {key.to_user_string(): graph.get(key).to_asset_spec() for key in graph.get_all_asset_keys()}


def test_a_table_shows_in_dagster_with_all_that_its_author_declared(project: Project) -> None:
    spec = specs(project)["main/orders_daily"]
    assert spec.description == "Orders, a day at a time."
    assert list(spec.owners) == ["growth@example.com"]
    assert spec.kinds == {"dbt", "duckdb", "partitioned"}
    assert spec.tags["core"] == ""
    assert spec.code_version == project.tables["main/orders_daily"].code_version
    assert isinstance(spec.partitions_def, dg.TimeWindowPartitionsDefinition)
    assert spec.partitions_def.get_first_partition_key() == "2024-01-01"
    assert spec.metadata["dagster/relation_identifier"] == '"tiny"."main"."orders_daily"'
    assert spec.metadata["t2/file"] == "models/orders_daily.sql"
    columns = spec.metadata["dagster/column_schema"].columns
    assert [(column.name, column.type, column.description) for column in columns] == [
        ("id", "integer", "The order's number."),
        ("amount", "double", None),
        ("note", "varchar", None),
    ]
    (link,) = spec.metadata["dagster/code_references"].code_references
    assert Path(link.file_path).read_text().startswith("select id, amount")


def test_tables_take_slots_of_the_pool_that_they_name_or_of_the_warehouses(project: Project) -> None:
    table = project.tables["main/totals"]
    tables = {**project.tables, table.key: replace(table, pool="heavy")}
    defs = build_defs(replace(project, tables=tables)).resolve_implicit_global_asset_job_def()
    pools = {node.name: node.definition.pool for node in defs.nodes}
    assert {name: pool for name, pool in pools.items() if pool != "duckdb_dev"} == {"main__totals": "heavy"}
    assert "main__orders_daily" in pools
    assert "raw__orders__checks" in pools


def test_groups_and_teams_take_names_that_dagster_allows(project: Project) -> None:
    table = project.tables["main/totals"]
    odd = replace(
        table, group="Finance & Tax", owners=("data platform", "a.b@example.com"), tags=("ok", "not ok!")
    )
    spec = specs(replace(project, tables={**project.tables, table.key: odd}))["main/totals"]
    assert spec.group_name == "Finance_Tax"
    assert list(spec.owners) == ["team:data_platform", "a.b@example.com"]
    assert {tag for tag in spec.tags if not tag.startswith("dagster/")} == {"ok"}


def test_a_source_is_an_asset_that_dagster_does_not_build(project: Project) -> None:
    graph = build_defs(project).resolve_asset_graph()
    source = graph.get(dg.AssetKey(["raw", "orders"]))
    assert source.is_external
    assert source.partitions_def is not None
    assert source.group_name == "raw"
    assert {key.name for key in source.check_keys} == {"source_not_null_raw_orders_id"}


def test_a_test_is_a_check_that_is_partitioned_like_its_table(project: Project) -> None:
    graph = build_defs(project).resolve_asset_graph()
    key = dg.AssetKey(["main", "orders_daily"])
    checks = {check.name: graph.get_check_spec(check) for check in graph.get(key).check_keys}
    amount, note = checks["not_null_orders_daily_amount"], checks["not_null_orders_daily_note"]
    assert (amount.blocking, note.blocking) == (True, False)
    assert amount.partitions_def is graph.get(key).partitions_def
    assert amount.metadata == {"t2/kind": "not_null", "t2/file": "models/models.yml", "t2/column": "amount"}


def test_backfills_keep_to_the_partitions_of_one_run(project: Project) -> None:
    graph = build_defs(project).resolve_asset_graph()
    policy = graph.get(dg.AssetKey(["main", "orders_daily"])).backfill_policy
    assert policy == dg.BackfillPolicy.multi_run(10)


def test_a_table_that_reads_itself_depends_on_its_earlier_partition(project: Project) -> None:
    graph = build_defs(project).resolve_asset_graph()
    balance = graph.get(dg.AssetKey(["main", "balance"]))
    mapping = balance.partition_mappings[balance.key]
    assert mapping == dg.TimeWindowPartitionMapping(-1, -1, allow_nonexistent_upstream_partitions=True)


def test_tables_whose_names_look_alike_have_ops_of_their_own(project: Project) -> None:
    fine = project.tables["main/fine"]
    tables: dict[str, Table] = {}
    for key in ("a__b/c", "a/b__c", "a-b/c", "a.b/c"):
        schema, name = key.split("/")
        tables[key] = replace(fine, key=key, schema=schema, name=name)
    defs = build_defs(replace(project, tables=tables, sources={}))
    assert defs.resolve_implicit_global_asset_job_def().execute_in_process is not None
    assert len({node.name for node in defs.resolve_implicit_global_asset_job_def().nodes}) == 4


def test_an_upstream_that_is_read_twice_gives_one_dependency_with_the_wider_window(project: Project) -> None:
    day = Partitioning(Grain.DAY, datetime(2024, 1, 1), "ordered_on")
    table = replace(
        project.tables["main/fine"],
        partitioning=day,
        upstreams=(Upstream("raw/orders"), Upstream("raw/orders", lookback=6, through=("main/v",))),
    )
    graph = build_defs(replace(project, tables={table.key: table})).resolve_asset_graph()
    (mapping,) = graph.get(dg.AssetKey(["main", "fine"])).partition_mappings.values()
    assert mapping == dg.TimeWindowPartitionMapping(-6, 0, allow_nonexistent_upstream_partitions=True)


def test_dagsters_own_command_validates_a_code_location_and_loads_no_dbt(
    project: Project, tmp_path: Path
) -> None:
    module = tmp_path / "location.py"
    module.write_text(
        "import sys\n"
        "import dagster as dg\n"
        "import t2\n"
        "@dg.asset(deps=[dg.AssetKey(['main', 'totals'])])\n"
        "def report() -> None: ...\n"
        f"defs = dg.Definitions.merge(t2.build_defs({project.root!r}), dg.Definitions([report]))\n"
        "assert not {'dbt', 'duckdb'} & set(sys.modules), 'dbt is loaded'\n"
    )
    command = [sys.executable, "-m", "dagster", "definitions", "validate", "-f", str(module)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
