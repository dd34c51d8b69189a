from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from runs import Runs, partition, partitions

import t2
from t2.project.model import Project

DAILY, BALANCE = "main/orders_daily", "main/balance"


@pytest.fixture(scope="module")
def runs(project: Project) -> Iterator[Runs]:
    with dg.instance_for_test() as instance:
        yield Runs(t2.build_defs(project, automation=False), instance)


@contextmanager
def changed(project: Project, change: str, back: str) -> Iterator[None]:
    """Change the raw data for a while."""
    for statement in (change, back):
        with duckdb.connect(str(Path(project.root) / "tiny.duckdb")) as connection:
            connection.execute(statement)
        if statement is change:
            yield


def note(day: str, text: str) -> str:
    return f"update raw.orders set note = {text} where ordered_on = date '{day}'"


def test_a_partition_is_built_and_then_checked(runs: Runs) -> None:
    done = runs.build(DAILY, tags=partition("2024-01-03"))
    assert done.story == [
        "built orders_daily 2024-01-03",
        "check not_null_orders_daily_amount 2024-01-03: passed",
        "check not_null_orders_daily_note 2024-01-03: passed",
        "STEP_SUCCESS main__orders_daily",
    ]


def test_a_materialization_says_what_was_run_and_what_it_had_read(project: Project, runs: Runs) -> None:
    before = runs.instance.event_log_storage.get_maximum_record_id() or 0
    done = runs.build(DAILY, tags=partition("2024-01-02"))
    (built,) = done.materializations()
    (record,) = runs.instance.fetch_materializations(built.asset_key, limit=1).records
    assert before < built.metadata["t2/as_of"].value < record.storage_id
    assert (
        "insert" in built.metadata["t2/compiled_sql"].value
        or "select" in built.metadata["t2/compiled_sql"].value
    )
    assert built.metadata["t2/execution_seconds"].value > 0
    assert 0 < built.metadata["t2/warehouse_seconds"].value <= built.metadata["t2/execution_seconds"].value
    assert built.tags["dagster/code_version"] == project.tables[DAILY].code_version
    assert built.tags["dagster/input_event_pointer/raw/orders"] == "NULL"


def test_a_range_is_built_in_one_statement_and_recorded_once_a_partition(runs: Runs) -> None:
    done = runs.build(DAILY, tags=partitions("2024-01-04", "2024-01-06"))
    assert done.story == [
        *(f"built orders_daily 2024-01-0{day}" for day in (4, 5, 6)),
        *(f"check not_null_orders_daily_amount 2024-01-0{day}: passed" for day in (4, 5, 6)),
        *(f"check not_null_orders_daily_note 2024-01-0{day}: passed" for day in (4, 5, 6)),
        "STEP_SUCCESS main__orders_daily",
    ]
    assert [built.metadata["t2/partitions_built_together"].value for built in done.materializations()] == [
        3
    ] * 3


def test_a_check_names_the_materialization_that_it_looked_at(runs: Runs) -> None:
    done = runs.build(DAILY, tags=partitions("2024-01-01", "2024-01-02"))
    records = runs.instance.fetch_materializations(dg.AssetKey(["main", "orders_daily"]), limit=2).records
    newest = {record.partition_key: record.storage_id for record in records}
    checks = [e.event_specific_data for e in done.events if e.event_type_value == "ASSET_CHECK_EVALUATION"]
    assert {c.target_materialization_data.storage_id == newest[c.partition] for c in checks} == {True}
    assert {c.metadata["t2/screened"].value for c in checks} == {True}


def test_a_failing_table_fails_alone_with_dbts_own_words(project: Project, runs: Runs) -> None:
    done = runs.build(
        "main/broken", "main/after_broken", "main/fine", DAILY.replace("orders_daily", "totals")
    )
    assert not done.success
    assert sorted(done.story) == [
        "STEP_FAILURE main__broken",
        "STEP_SUCCESS main__fine",
        "STEP_SUCCESS main__totals",
        "built fine None",
        "built totals None",
        "observed broken None",
    ]
    failure = done.failure("main__broken").user_failure_data
    assert failure.description.startswith("Runtime Error in model broken (models/broken.sql)\n  Binder Error")
    assert "select no_such_column" in failure.metadata["compiled SQL"].value
    assert failure.metadata["dbt file"].value == "models/broken.sql"
    (observed,) = [
        e.event_specific_data.asset_observation
        for e in done.events
        if e.event_type_value == "ASSET_OBSERVATION"
    ]
    assert observed.tags["t2/failed"] == "true"
    assert observed.metadata["t2/error"].value == failure.description
    assert observed.metadata["t2/code_version"].value == project.tables["main/broken"].code_version


def test_a_failed_blocking_check_fails_its_table_after_all_was_reported(project: Project, runs: Runs) -> None:
    null, back = (
        f"update raw.orders set amount = {amount} where ordered_on = date '2024-01-05'"
        for amount in ("null", "10.0")
    )
    with changed(project, null, back):
        done = runs.build(DAILY, "main/totals", tags=partitions("2024-01-04", "2024-01-06"))
    assert not done.success
    assert done.story == [
        *(f"built orders_daily 2024-01-0{day}" for day in (4, 5, 6)),
        "check not_null_orders_daily_amount 2024-01-04: passed",
        "check not_null_orders_daily_amount 2024-01-05: failed ERROR",
        "check not_null_orders_daily_amount 2024-01-06: passed",
        *(f"check not_null_orders_daily_note 2024-01-0{day}: passed" for day in (4, 5, 6)),
        "STEP_FAILURE main__orders_daily",
    ]
    failure = done.failure("main__orders_daily").user_failure_data
    assert failure.description.endswith("not_null_orders_daily_amount (1 row) on 2024-01-05")


def test_a_failed_warning_fails_nothing(project: Project, runs: Runs) -> None:
    with changed(project, note("2024-01-07", "null"), note("2024-01-07", "'x'")):
        done = runs.build(DAILY, tags=partition("2024-01-07"))
    assert done.success
    assert "check not_null_orders_daily_note 2024-01-07: failed WARN" in done.story


def test_a_table_that_reads_itself_keeps_what_it_built_before_it_failed_and_a_retry_goes_on(
    project: Project, runs: Runs
) -> None:
    with changed(project, note("2024-01-03", "'bad'"), note("2024-01-03", "'x'")):
        failed = runs.build(BALANCE, tags=partitions("2024-01-01", "2024-01-04"))
    assert failed.story == [
        "built balance 2024-01-01",
        "built balance 2024-01-02",
        "observed balance 2024-01-03",
        "observed balance 2024-01-04",
        "STEP_FAILURE main__balance",
    ]
    again = runs.retry(failed)
    assert again.story == [
        "built balance 2024-01-03",
        "built balance 2024-01-04",
        "STEP_SUCCESS main__balance",
    ]
    rows = duckdb.connect(str(Path(project.root) / "tiny.duckdb")).execute(
        "select amount from main.balance order by ordered_on"
    )
    assert rows.fetchall() == [(10.0,), (20.0,), (30.0,), (40.0,)]


def test_each_partition_of_a_table_that_reads_itself_has_read_the_one_before(runs: Runs) -> None:
    done = runs.build(BALANCE, tags=partitions("2024-01-05", "2024-01-07"))
    records = runs.instance.fetch_materializations(dg.AssetKey(["main", "balance"]), limit=3).records
    landed = [record.storage_id for record in reversed(records)]
    as_of = [built.metadata["t2/as_of"].value for built in done.materializations()]
    assert as_of[0] < landed[0] <= as_of[1] < landed[1] <= as_of[2] < landed[2]


def test_a_retry_builds_again_what_a_blocking_check_failed_on(project: Project, runs: Runs) -> None:
    null, back = (
        f"update raw.orders set amount = {amount} where ordered_on = date '2024-01-02'"
        for amount in ("null", "10.0")
    )
    with changed(project, null, back):
        failed = runs.build(DAILY, tags=partitions("2024-01-01", "2024-01-03"))
    assert not failed.success
    assert runs.retry(failed).story == [
        "built orders_daily 2024-01-02",
        "check not_null_orders_daily_amount 2024-01-02: passed",
        "check not_null_orders_daily_note 2024-01-02: passed",
        "STEP_SUCCESS main__orders_daily",
    ]


def test_checks_can_be_executed_alone(runs: Runs) -> None:
    runs.build(DAILY, tags=partition("2024-01-01"))
    done = runs.check(DAILY, "not_null_orders_daily_note", tags=partition("2024-01-01"))
    assert done.story == [
        "check not_null_orders_daily_note 2024-01-01: passed",
        "STEP_SUCCESS main__orders_daily",
    ]


def test_the_tests_of_a_source_can_be_executed(runs: Runs) -> None:
    done = runs.check("raw/orders", "source_not_null_raw_orders_id", tags=partition("2024-01-02"))
    assert done.story == [
        "check source_not_null_raw_orders_id 2024-01-02: passed",
        "STEP_SUCCESS raw__orders__checks",
    ]
