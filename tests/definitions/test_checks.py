"""Failed checks: whom they hold back inside a run and after it, and what opens the gate again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
import duckdb
import gated
import pytest
from runs import Runs, partition, partitions

import t2
from t2.definitions.planner_sensor import Planner
from t2.explain.why import why
from t2.ledger.ledger import Ledger
from t2.ledger.storage import locate
from t2.planning.planner import Plan, plan
from t2.planning.verdict import Outcome
from t2.project.model import Project

NOW = datetime(2024, 1, 8, 12, tzinfo=timezone.utc)
ORDERS, ALL = "main/orders", ("main/orders", "main/named", "main/lagging", "main/free", "main/after_named")
FIRST, SECOND, THIRD, FOURTH, FIFTH, SIXTH, SEVENTH = (f"2024-01-0{day}" for day in range(1, 8))
VALUES = {"amount": "10.0", "note": "'x'", "extra": "'y'", "id": "dayofmonth(ordered_on) - 1"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return t2.load_project(gated.write(tmp_path_factory.mktemp("gated")))


@pytest.fixture(scope="module")
def runs(shop: Project) -> Iterator[Runs]:
    """One instance for all tests, in order; as a rule each has days of its own."""
    with dg.instance_for_test() as instance:
        for day in range(1, 8):
            instance.report_runless_asset_event(
                dg.AssetMaterialization(["raw", "orders"], partition=f"2024-01-0{day}")
            )
        yield Runs(t2.build_defs(shop, automation=False), instance)


def execute(project: Project, statement: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(Path(project.root) / "gated.duckdb")) as connection:
        return connection.execute(statement).fetchall()


@contextmanager
def wrong(project: Project, column: str, day: str, value: str = "null") -> Iterator[None]:
    """Let the raw data be wrong on a day, for a while."""
    for now in (value, VALUES[column]):
        execute(project, f"update raw.orders set {column} = {now} where ordered_on = date '{day}'")
        if now == value:
            yield


def planned(project: Project, runs: Runs) -> Plan:
    ledger = Ledger(locate(Path(runs.instance.root_directory)))
    ledger.follow()
    return plan(project, ledger.state(project, NOW), NOW)


def outcomes(made: Plan, key: str, *days: str) -> list[str]:
    return [Outcome(int(made.outcomes[key][int(day[-2:]) - 1])).label for day in days]


def built(story: list[str], table: str) -> list[str]:
    return [line.split()[-1] for line in story if line.startswith(f"built {table} ")]


def asked(project: Project, runs: Runs, now: datetime) -> list[dg.RunRequest]:
    planner = Planner(project, Ledger(locate(Path(runs.instance.root_directory))))
    planner.look(runs.instance, now)
    found = list(planner.requests())
    planner.look(runs.instance, now)
    assert [request for request in planner.requests() if not request.asset_selection] == []  # asked for once
    return found


def checks_of(request: dg.RunRequest) -> list[str]:
    return [key.name for key in request.asset_check_keys or ()]


def test_daily_tests_are_not_part_of_the_runs_that_build(shop: Project, runs: Runs) -> None:
    requests = asked(shop, runs, NOW)
    (build,) = [
        r for r in requests if r.asset_selection and dg.AssetKey(["main", "orders"]) in r.asset_selection
    ]
    assert set(checks_of(build)) == {
        "not_null_orders_amount",
        "not_null_orders_extra",
        "not_null_orders_note",
        "unique_orders_id",
    }


def test_a_named_reader_leaves_out_what_needs_the_failed_partition_and_the_others_build(
    shop: Project, runs: Runs
) -> None:
    days = (FIRST, SECOND, THIRD)
    with wrong(shop, "note", SECOND):
        done = runs.build(*ALL, tags=partitions(FIRST, THIRD))
    assert done.success
    assert [line for line in done.story if "orders_note" in line] == [
        f"check not_null_orders_note {FIRST}: passed",
        f"check not_null_orders_note {SECOND}: failed ERROR",
        f"check not_null_orders_note {THIRD}: passed",
    ]
    assert {table: built(done.story, table) for table in ("orders", "free", "named", "lagging")} == {
        "orders": [FIRST, SECOND, THIRD],
        "free": [FIRST, SECOND, THIRD],
        "named": [FIRST, THIRD],
        "lagging": [FIRST],  # the second and the third read the second
    }
    assert sorted(line for line in done.story if line.startswith("observed")) == [
        f"observed lagging {SECOND}",
        f"observed lagging {THIRD}",
        f"observed named {SECOND}",
    ]
    assert "STEP_SUCCESS main__after_named" not in done.story
    waits = planned(shop, runs)
    assert outcomes(waits, "main/named", *days) == ["landed", "waiting", "landed"]
    assert outcomes(waits, "main/lagging", *days) == ["landed", "waiting", "waiting"]
    assert outcomes(waits, "main/after_named", *days) == ["ready", "waiting", "ready"]
    assert outcomes(waits, "main/free", *days) == outcomes(waits, ORDERS, *days) == ["landed"] * 3
    # A retry of the run builds nothing more.
    again = runs.retry(done)
    assert [built(again.story, table) for table in ("orders", "named", "lagging")] == [[], [], []]
    assert not again.run.is_failure


def test_why_names_the_check_that_holds_back_the_named_reader(shop: Project, runs: Runs) -> None:
    ledger = Ledger(locate(Path(runs.instance.root_directory)))
    answer = why(planned(shop, runs), ledger, "main/named", 1)
    assert answer.sentence == (
        "main/named 2024-01-02 waits for main/orders 2024-01-02 (not_null_orders_note (1 row) blocks it)."
    )
    assert [(cause.table, cause.first, cause.outcome, cause.text) for cause in answer.causes] == [
        (ORDERS, SECOND, "blocked", "main/orders 2024-01-02 failed not_null_orders_note (1 row)")
    ]
    below = why(planned(shop, runs), ledger, "main/after_named", 1)
    assert [cause.text for cause in below.causes] == [cause.text for cause in answer.causes]


def test_a_check_that_passes_when_it_runs_alone_opens_the_gate(shop: Project, runs: Runs) -> None:
    execute(shop, "update main.orders set note = 'x'")
    again = runs.check(ORDERS, "not_null_orders_note", tags=partition(SECOND))
    assert f"check not_null_orders_note {SECOND}: passed" in again.story
    opened = planned(shop, runs)
    assert outcomes(opened, "main/named", FIRST, SECOND, THIRD) == ["landed", "ready", "landed"]
    assert outcomes(opened, "main/lagging", FIRST, SECOND, THIRD) == ["landed", "ready", "ready"]


def test_who_asks_for_a_named_reader_alone_gets_it(shop: Project, runs: Runs) -> None:
    with wrong(shop, "note", SECOND):
        runs.build(ORDERS, tags=partition(SECOND))
    assert built(runs.build("main/named", tags=partition(SECOND)).story, "named") == [SECOND]


def test_a_failed_step_names_the_checks_and_shows_their_sql(shop: Project, runs: Runs) -> None:
    with wrong(shop, "amount", FOURTH):
        done = runs.build(ORDERS, "main/free", tags=partitions(FOURTH, FIFTH))
    assert not done.success
    failure = done.failure("main__orders").user_failure_data
    assert failure.description == (
        f"what reads main/orders is held back by failed checks:\nnot_null_orders_amount (1 row) on {FOURTH}"
    )
    assert "amount" in failure.metadata["SQL of not_null_orders_amount"].value
    assert built(done.story, "free") == []
    made = planned(shop, runs)
    assert outcomes(made, "main/free", FOURTH, FIFTH) == ["waiting", "ready"]
    assert outcomes(made, ORDERS, FOURTH, FIFTH) == ["blocked", "landed"]


def test_a_deleted_test_holds_back_nothing_and_somebodys_own_check_does(shop: Project, runs: Runs) -> None:
    orders = shop.tables[ORDERS]
    fewer = tuple(test for test in orders.tests if not test.name.endswith("_amount"))
    without = replace(
        shop, fingerprint="without", tables={**shop.tables, ORDERS: replace(orders, tests=fewer)}
    )
    assert outcomes(planned(without, runs), "main/free", FOURTH, FIFTH) == ["ready", "ready"]
    runs.instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(["main", "orders"]),
            check_name="their_own",
            passed=False,
            blocking=True,
            partition=FIFTH,
            severity=dg.AssetCheckSeverity.ERROR,
            metadata={},
        )
    )
    assert outcomes(planned(without, runs), "main/free", FOURTH, FIFTH) == ["ready", "waiting"]


def test_warnings_of_a_range_are_stored_for_each_partition_and_hold_back_nothing(
    shop: Project, runs: Runs
) -> None:
    with wrong(shop, "extra", FIFTH):
        done = runs.build(ORDERS, tags=partitions(FOURTH, FIFTH))
    assert done.success
    ledger = Ledger(locate(Path(runs.instance.root_directory)))
    ledger.follow()
    seen = {
        day: [(c.passed, c.severity) for c in ledger.checks(ORDERS, day) if c.name.endswith("_extra")]
        for day in (FOURTH, FIFTH)
    }
    assert seen == {FOURTH: [(True, "WARN")], FIFTH: [(False, "WARN")]}
    assert outcomes(planned(shop, runs), "main/free", FOURTH, FIFTH) == ["ready", "ready"]


def test_a_table_that_reads_itself_stops_at_the_partition_that_failed(shop: Project, runs: Runs) -> None:
    with wrong(shop, "amount", SECOND):
        done = runs.build("main/balance", tags=partitions(FIRST, THIRD))
    assert not done.success
    assert built(done.story, "balance") == [FIRST, SECOND]
    assert f"observed balance {THIRD}" in done.story
    made = planned(shop, runs)
    assert outcomes(made, "main/balance", FIRST, SECOND, THIRD) == ["landed", "blocked", "waiting"]


def test_a_check_of_a_source_holds_back_what_reads_the_partition(shop: Project, runs: Runs) -> None:
    with wrong(shop, "id", SIXTH):
        done = runs.check("raw/orders", "source_not_null_raw_orders_id", tags=partitions(FIFTH, SEVENTH))
    assert [line for line in done.story if line.startswith("check")] == [
        f"check source_not_null_raw_orders_id {FIFTH}: passed",
        f"check source_not_null_raw_orders_id {SIXTH}: failed ERROR",
        f"check source_not_null_raw_orders_id {SEVENTH}: passed",
    ]
    assert outcomes(planned(shop, runs), ORDERS, FIFTH, SIXTH, SEVENTH) == ["landed", "waiting", "ready"]


def test_a_check_of_the_whole_table_holds_back_what_was_built_since_it_passed(
    shop: Project, runs: Runs
) -> None:
    with wrong(shop, "id", SIXTH, "0"):
        assert not runs.build(ORDERS, tags=partition(SIXTH)).success
    assert outcomes(planned(shop, runs), "main/free", FIFTH, SIXTH) == ["ready", "waiting"]
    assert not runs.build(ORDERS, tags=partition(SEVENTH)).success  # the sixth day is still wrong
    assert outcomes(planned(shop, runs), "main/free", FIFTH, SIXTH, SEVENTH) == [
        "ready",
        "waiting",
        "waiting",
    ]
    assert runs.build(ORDERS, tags=partition(SIXTH)).success
    assert outcomes(planned(shop, runs), "main/free", FIFTH, SIXTH, SEVENTH) == ["ready"] * 3


def test_daily_tests_are_asked_for_on_what_landed_the_day_before(shop: Project, runs: Runs) -> None:
    tomorrow = (datetime.now(timezone.utc) + timedelta(days=1)).replace(hour=5, minute=0, second=1)
    (daily,) = [request for request in asked(shop, runs, tomorrow) if not request.asset_selection]
    assert checks_of(daily) == ["not_null_orders_id"]
    assert daily.tags == {**partitions(FIRST, SEVENTH), "t2/why": "daily", "dagster/priority": "-1"}
    done = runs.check(ORDERS, *checks_of(daily), tags=partitions(FIRST, SEVENTH))
    assert [line for line in done.story if line.startswith("check")] == [
        f"check not_null_orders_id 2024-01-0{day}: passed" for day in range(1, 8)
    ]
