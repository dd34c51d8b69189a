"""Backfills in the planner: full runs in order, and everything else goes on meanwhile."""

from __future__ import annotations

import random
from collections import Counter
from datetime import datetime

import numpy as np
from tests.planning.projects import blank, by, fail, land, project, source, table, utc
from tests.planning.test_planner import outcomes, runs

from t2.planning.grid import Grid
from t2.planning.planner import plan
from t2.planning.preview import count_runs, preview
from t2.planning.reasons import verdict
from t2.planning.state import State, Wanted
from t2.planning.verdict import Outcome
from t2.project.model import Grain, Project, Retries, Upstream

HOURS, DAYS, WEEKS = by(Grain.HOUR), by(Grain.DAY), by(Grain.WEEK)
NOW = utc(2024, 3, 18)  # two weeks, 14 days and 336 hours after begin


def landed(made: Project) -> State:
    state = blank(made, NOW)
    for node in made.nodes():
        land(state, node.key)
    return state


def want(state: State, key: str, indices: range | None = None, *, backfill: int = 1) -> None:
    """Let a backfill want partitions (all by default) from now on."""
    count = state.tables[key].count
    old = state.wanted.get(key) or Wanted(np.zeros(count, np.int64), np.zeros(count, np.int64))
    chosen = list(range(count) if indices is None else indices)
    old.backfill[chosen], old.since[chosen] = backfill, state.cursor + 1
    state.wanted = {**state.wanted, key: old}


def build(state: State, key: str, indices: range) -> None:
    """Land partitions that saw everything so far, the events of their own run included."""
    state.cursor += 1
    land(state, key, indices)


def calendar() -> Project:
    return project(
        source("s", HOURS),
        table("hourly", HOURS, "raw/s", size=24, concurrency=2),
        table("daily", DAYS, "m/hourly", size=5, concurrency=2),
        table("weekly", WEEKS, "m/daily", size=10),
        table("report", None, "m/daily"),
    )


def test_what_a_backfill_wants_is_built_again_once() -> None:
    made = calendar()
    state = landed(made)
    assert runs(plan(made, state, NOW)) == []
    want(state, "m/hourly", range(24))
    [request] = plan(made, state, NOW).requests
    assert (request.first, request.last) == ("2024-03-04-00:00", "2024-03-04-23:00")
    assert (request.why, request.backfill, request.priority) == ("backfill", 1, -2)
    build(state, "m/hourly", range(24))
    assert runs(plan(made, state, NOW)) == []


def test_a_build_that_read_its_inputs_before_the_request_does_not_count() -> None:
    made = calendar()
    state = landed(made)
    want(state, "m/weekly", range(1))
    before = state.cursor
    build(state, "m/weekly", range(1))
    state.tables["m/weekly"].as_of[0] = before
    assert runs(plan(made, state, NOW)) == [(("m/weekly",), "2024-03-04", "2024-03-04")]


def test_a_run_of_a_backfill_waits_until_all_of_it_is_ready() -> None:
    made = calendar()
    state = landed(made)
    for key in ("m/hourly", "m/daily", "m/weekly"):
        want(state, key)
    assert len(runs(plan(made, state, NOW))) == 2  # of hourly: its concurrency
    build(state, "m/hourly", range(24 * 4))
    planned = plan(made, state, NOW)
    assert {tables for tables, _, _ in runs(planned)} == {("m/hourly",)}
    assert outcomes(planned, "m/daily")[:5] == [Outcome.HELD] * 4 + [Outcome.WAITING]
    build(state, "m/hourly", range(24 * 5, 24 * 10))  # out of order: the second five days
    assert (("m/daily",), "2024-03-09", "2024-03-13") in runs(plan(made, state, NOW))
    build(state, "m/hourly", range(24 * 4, 24 * 14))
    assert runs(plan(made, state, NOW)) == [
        (("m/daily",), "2024-03-04", "2024-03-08"),
        (("m/daily",), "2024-03-09", "2024-03-13"),
    ]
    build(state, "m/daily", range(10))
    assert runs(plan(made, state, NOW)) == [(("m/daily",), "2024-03-14", "2024-03-17")]
    build(state, "m/daily", range(10, 14))
    assert runs(plan(made, state, NOW)) == [(("m/weekly",), "2024-03-04", "2024-03-11")]


def test_tables_of_a_backfill_share_runs_if_their_runs_have_the_same_size() -> None:
    made = project(
        source("s", DAYS),
        table("a", DAYS, "raw/s", size=7),
        table("same", DAYS, "m/a", size=7),
        table("less", DAYS, "m/a", size=2),
        table("more", DAYS, "m/a", size=30),
    )
    state = landed(made)
    for key in made.tables:
        want(state, key)
    assert runs(plan(made, state, NOW)) == [(("m/a", "m/same"), "2024-03-04", "2024-03-10")]
    for key in ("m/a", "m/same"):
        build(state, key, range(14))
    assert runs(plan(made, state, NOW)) == [
        (("m/less",), "2024-03-04", "2024-03-05"),
        (("m/more",), "2024-03-04", "2024-03-17"),
    ]


def test_a_late_partition_goes_before_a_backfill_of_the_same_table() -> None:
    made = calendar()
    state = landed(made)
    want(state, "m/hourly", range(300))
    land(state, "raw/s", 330)
    state.tables["m/hourly"].active_runs = 1  # room for one
    [request] = plan(made, state, NOW).requests
    assert (request.first, request.backfill, request.priority) == ("2024-03-17-18:00", 0, -1)
    assert runs(plan(made, state, NOW, max_requests=1)) == [(("m/hourly",), request.first, request.last)]


def test_what_reads_a_table_outside_of_its_backfill_goes_on_and_is_built_once_when_that_is_over() -> None:
    made = project(
        source("s", DAYS),
        source("other", DAYS),
        table("a", DAYS, "raw/s", size=2),
        table("rolling", DAYS, Upstream("m/a", 6), "raw/other", size=30),
        table("report", None, "m/a", "raw/other"),
    )
    state = landed(made)
    want(state, "m/a", range(13))
    land(state, "raw/other", 13)  # what a current day has to do with
    state.tables["m/a"].active[:2] = 2
    asked = runs(plan(made, state, NOW))
    assert (("m/rolling",), "2024-03-17", "2024-03-17") in asked
    assert (("m/report",), None, None) in asked
    build(state, "m/rolling", range(13, 14))
    build(state, "m/report", range(1))
    state.tables["m/a"].active[:] = 0
    build(state, "m/a", range(6))
    assert {tables for tables, _, _ in runs(plan(made, state, NOW))} == {("m/a",)}
    build(state, "m/a", range(6, 13))
    assert runs(plan(made, state, NOW)) == []
    state.wanted = {}
    assert runs(plan(made, state, NOW)) == [
        (("m/report",), None, None),
        (("m/rolling",), "2024-03-04", "2024-03-17"),
    ]


def test_a_dirty_input_holds_back_readers_also_during_a_backfill() -> None:
    made = project(source("s", DAYS), table("a", DAYS, "raw/s"), table("b", DAYS, Upstream("m/a", 1)))
    state = landed(made)
    want(state, "m/a")
    land(state, "raw/s", 5)
    state.tables["raw/s"].blocked[5] = True
    state.tables["m/b"].landed_id[6] = state.tables["m/b"].as_of[6] = 0
    assert verdict(plan(made, state, NOW), "m/b", 6).outcome is Outcome.WAITING


def test_what_failed_a_check_stays_barred_for_those_outside_until_a_backfill_has_built_it_anew() -> None:
    # Regression: the check was taken to run anew also for who reads the old data meanwhile.
    made = project(
        source("s", DAYS), source("u", DAYS), table("a", DAYS, "raw/s"), table("b", DAYS, "m/a", "raw/u")
    )
    state = landed(made)
    state.tables["m/a"].barred["m/b"] = np.arange(14) == 3
    land(state, "raw/u", 3)
    want(state, "m/a")
    planned = plan(made, state, NOW)
    assert runs(planned)[:1] == [(("m/a",), "2024-03-04", "2024-03-04")]
    assert outcomes(planned, "m/b")[3] is Outcome.WAITING
    assert [reason.key for reason in verdict(planned, "m/b", 3).reasons] == ["m/a"]


def test_the_readers_of_a_partition_that_failed_in_a_backfill_wait_and_the_others_do_not() -> None:
    made = project(
        source("s", DAYS),
        table("a", DAYS, "raw/s", retries=Retries(0, 30)),
        table("b", DAYS, Upstream("m/a", 1), size=3, concurrency=9),
    )
    state = landed(made)
    for key in ("m/a", "m/b"):
        want(state, key, range(6))
    build(state, "m/a", range(6))
    fail(state, "m/a", 2, NOW)
    state.tables["m/a"].as_of[2] = 0
    planned = plan(made, state, NOW)
    assert outcomes(planned, "m/a")[2] is Outcome.FAILED
    assert runs(planned) == [
        (("m/b",), "2024-03-04", "2024-03-05"),
        (("m/b",), "2024-03-08", "2024-03-09"),
    ]
    assert [reason.key for reason in verdict(planned, "m/b", 3).reasons] == ["m/a"]


def test_a_self_dependent_table_goes_in_order_and_lets_its_current_partition_through() -> None:
    own = Upstream("m/t", 1)
    made = project(source("s", DAYS), table("t", DAYS, "raw/s", own, size=4))
    state = landed(made)
    want(state, "m/t", range(13))
    assert runs(plan(made, state, NOW)) == [(("m/t",), "2024-03-04", "2024-03-07")]
    build(state, "m/t", range(4))
    land(state, "raw/s", 13)
    assert runs(plan(made, state, NOW)) == [(("m/t",), "2024-03-17", "2024-03-17")]
    build(state, "m/t", range(13, 14))
    assert runs(plan(made, state, NOW)) == [(("m/t",), "2024-03-08", "2024-03-11")]


def test_a_self_dependent_table_goes_in_order_also_if_a_later_backfill_wants_what_is_earlier() -> None:
    made = project(source("s", DAYS), table("t", DAYS, "raw/s", Upstream("m/t", 1), size=4))
    state = landed(made)
    want(state, "m/t", range(2, 4), backfill=1)
    want(state, "m/t", range(2), backfill=2)
    for backfill, days in ((2, range(2)), (1, range(2, 4))):
        [request] = plan(made, state, NOW).requests
        assert (request.backfill, request.partitions) == (backfill, 2)
        build(state, "m/t", days)
    assert plan(made, state, NOW).requests == ()


def test_a_manual_table_is_built_where_a_backfill_wants_it_before_what_reads_it() -> None:
    made = project(
        source("s", DAYS),
        table("a", DAYS, "raw/s", automation="manual", size=14),
        table("b", DAYS, Upstream("m/a", 1), size=14),
    )
    state = landed(made)
    for key in ("m/a", "m/b"):
        want(state, key, range(3))
    assert runs(plan(made, state, NOW)) == [(("m/a",), "2024-03-04", "2024-03-06")]
    build(state, "m/a", range(3))
    assert runs(plan(made, state, NOW)) == [(("m/b",), "2024-03-04", "2024-03-06")]


def test_a_preview_leaves_out_what_waits_for_something_that_nobody_builds() -> None:
    made = project(
        source("s", DAYS),
        table("a", DAYS, "raw/s", automation="manual"),
        table("b", DAYS, "m/a", Upstream("m/b", 1), automation="manual", size=30),
        table("c", WEEKS, "m/b"),
    )
    state = blank(made, NOW)
    land(state, "raw/s", range(10))  # of 14
    now = plan(made, state, NOW)
    chosen = {key: np.ones(state.tables[key].count, np.bool_) for key in made.tables}
    found = preview(now, chosen, named=False)
    assert [(part.table, part.ranges, part.left_out) for part in found.parts] == [
        ("m/a", ((0, 9),), {"waits for what nobody builds": 4}),
        # Regression: days whose own day before is built counted, although their other inputs never come.
        ("m/b", ((0, 9),), {"waits for what nobody builds": 4}),
        ("m/c", ((0, 0),), {"is current: the planner builds it": 1}),
    ]


def test_backfills_are_worked_off_in_the_order_in_which_they_were_asked_for() -> None:
    made = calendar()
    state = landed(made)
    want(state, "m/daily", range(3), backfill=2)
    want(state, "m/daily", range(6, 9), backfill=1)
    assert [(request.backfill, request.first) for request in plan(made, state, NOW).requests] == [
        (1, "2024-03-10"),
        (2, "2024-03-04"),
    ]


def test_a_run_key_is_another_one_for_each_request() -> None:
    made = calendar()
    state = landed(made)
    want(state, "m/weekly")
    [first] = plan(made, state, NOW).requests
    assert plan(made, state, NOW).requests == (first,)
    state.cursor += 1
    want(state, "m/weekly")
    assert plan(made, state, NOW).requests[0].run_key != first.run_key


def test_a_year_of_hours_days_and_weeks_takes_the_runs_that_the_configuration_says() -> None:
    # 2023 is over; two days of 2024 come in while the year is built again.
    now = utc(2024, 1, 3)
    begin = datetime(2023, 1, 2)
    hours, days, weeks = (by(grain, begin) for grain in (Grain.HOUR, Grain.DAY, Grain.WEEK))
    made = project(
        source("s", hours),
        table("hourly", hours, "raw/s", size=24, concurrency=4),
        table("clean", hours, "m/hourly", size=24, concurrency=4),
        table("daily", days, "m/clean", size=30, concurrency=2),
        table("balance", days, "m/daily", Upstream("m/balance", 1), size=30),
        table("weekly", weeks, "m/daily", size=4, concurrency=2),
        table("report", None, "m/weekly"),
    )
    state = blank(made, now)
    due = {"m/hourly": 364 * 24, "m/clean": 364 * 24, "m/daily": 364, "m/balance": 364, "m/weekly": 52}
    for key in ("raw/s", *due):
        land(state, key, range(due.get(key, 364 * 24)))
    land(state, "m/report")
    chosen = {key: np.arange(state.tables[key].count) < count for key, count in due.items()}
    expected = {
        ("m/hourly", "m/clean"): 364,
        ("m/daily",): 13,
        ("m/balance",): 13,
        ("m/weekly",): 13,
    }
    assert count_runs(made, chosen) == (
        403,
        {"m/hourly": 364, "m/clean": 364, "m/daily": 13, "m/balance": 13, "m/weekly": 13},
    )
    for key, count in due.items():
        want(state, key, range(count))

    dice, running, asked, news = random.Random(7), [], Counter(), iter(range(364 * 24, 364 * 24 + 48))
    keys, current = set(), []
    for step in range(10_000):
        if step % 5 == 0 and (hour := next(news, None)) is not None:
            land(state, "raw/s", hour)
        for request in plan(made, state, now).requests:
            assert request.run_key not in keys
            keys.add(request.run_key)
            if request.backfill:
                asked[request.tables] += 1
            else:
                current.append(step)
            grid = Grid.of(made.tables[request.tables[0]].partitioning) if request.first else None
            first = grid.index(request.first) if grid and request.first else 0
            running.append((request.tables, range(first, first + request.partitions)))
            for key in request.tables:
                past = state.tables[key]
                past.active[first : first + request.partitions], past.active_runs = 2, past.active_runs + 1
                assert past.active_runs <= made.tables[key].backfill.concurrency
        if not running:
            break
        tables, span = running.pop(dice.randrange(len(running)))
        for key in tables:
            state.tables[key].active[span.start : span.stop] = 0
            state.tables[key].active_runs -= 1
            build(state, key, span)
    assert asked == expected
    # Two days of hours one at a time, their two days, and the report: nothing waited for the year's end.
    assert len(current) >= 48
    assert (state.tables["m/clean"].landed_id > 0).all()
    assert (state.tables["m/daily"].landed_id > 0).all()
