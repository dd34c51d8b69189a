"""Which partition is read where only the latest is."""

from __future__ import annotations

import dagster as dg
from tests.ledger.projects import DAYS, NOW, project, source, table

from t2.definitions.latest import latest
from t2.project.model import Project, Table, Upstream


def made(reader: Table) -> Project:
    return project(source("raw/s", DAYS), table("m/dim", DAYS), reader)


def land(instance: dg.DagsterInstance, *days: str) -> None:
    for day in days:
        key = dg.AssetKey(["m", "dim"])
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=day))


def test_it_is_the_newest_that_has_landed_by_the_end_of_each_partition() -> None:
    reader = table("m/a", DAYS, upstreams=(Upstream("m/dim", window="latest"), Upstream("raw/s")))
    keys = ["2024-01-01", "2024-01-02", "2024-01-03"]
    with dg.instance_for_test() as instance:
        land(instance, "2024-01-02")
        found = latest(made(reader), instance, reader, keys, NOW)
    # Of the first day, which has none, the planner waits for the dimension's first partition.
    assert found == {
        "2024-01-01": {"m/dim": "2024-01-01"},
        "2024-01-02": {"m/dim": "2024-01-02"},
        "2024-01-03": {"m/dim": "2024-01-02"},
    }


def test_a_table_without_partitions_reads_the_newest_of_all() -> None:
    reader = table("m/a", upstreams=(Upstream("m/dim", window="latest"),))
    with dg.instance_for_test() as instance:
        land(instance, "2024-01-01", "2024-01-02")
        assert latest(made(reader), instance, reader, [None], NOW) == {None: {"m/dim": "2024-01-02"}}


def test_who_reads_no_latest_asks_nobody() -> None:
    reader = table("m/a", DAYS, upstreams=(Upstream("m/dim"),))
    with dg.DagsterInstance.ephemeral() as instance:
        assert latest(made(reader), instance, reader, ["2024-01-01"], NOW) == {}
