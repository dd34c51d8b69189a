"""The rules of docs/planning.md, one small project at a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from tests.planning.projects import blank, by, fail, land, project, source, table, utc

from t2.planning.planner import Plan, plan
from t2.planning.reasons import verdict
from t2.planning.state import Active, Pause
from t2.planning.verdict import Outcome, Reason, Request, Verdict
from t2.project.model import Cron, Grain, LateData, Retries, Upstream

HOURS, DAYS = by(Grain.HOUR), by(Grain.DAY)
NOW = utc(2024, 3, 7)  # three days and 72 hours after begin

SIX = Cron("0 6 * * *")

L, W, R = Outcome.LANDED, Outcome.WAITING, Outcome.READY


def outcomes(made: Plan, key: str) -> list[Outcome]:
    return [Outcome(int(outcome)) for outcome in made.outcomes[key]]


def runs(made: Plan) -> list[tuple[tuple[str, ...], str | None, str | None]]:
    return [(request.tables, request.first, request.last) for request in made.requests]


def test_a_project_without_tables_plans_nothing() -> None:
    made = project()
    assert plan(made, blank(made, NOW), NOW).requests == ()


def test_a_table_whose_first_window_is_not_over_yet_is_not_due() -> None:
    made = project(source("s", HOURS), table("t", by(Grain.DAY, datetime(2024, 3, 7)), "raw/s"))
    planned = plan(made, blank(made, NOW), NOW)
    assert planned.requests == ()
    assert verdict(planned, "m/t", 0) == Verdict("m/t", 0, Outcome.NOT_DUE, stale=False)
    assert planned.next_change == utc(2024, 3, 7, 1).timestamp()


def test_a_table_with_no_inputs_is_built_at_once() -> None:
    made = project(table("t"), table("seed", kind="seed", materialized="seed"))
    planned = plan(made, blank(made, NOW), NOW)
    assert runs(planned) == [(("m/t",), None, None), (("m/seed",), None, None)]


def test_a_day_waits_for_all_of_its_24_hours() -> None:
    made = project(source("s", HOURS), table("t", DAYS, "raw/s"))
    state = blank(made, NOW)
    land(state, "raw/s", [i for i in range(72) if i != 30])
    planned = plan(made, state, NOW)
    assert outcomes(planned, "m/t") == [Outcome.HELD, W, R]
    assert verdict(planned, "m/t", 1).reasons == (Reason("raw/s", W, 30, 30),)
    land(state, "raw/s", 30)
    assert outcomes(plan(made, state, NOW), "m/t") == [Outcome.HELD, R, Outcome.HELD]


@pytest.mark.parametrize(
    ("zone", "begin", "hours"),
    [
        ("America/New_York", datetime(2024, 3, 10), 23),
        ("America/New_York", datetime(2024, 11, 3), 25),
        ("Europe/Berlin", datetime(2024, 3, 31), 23),
        ("Europe/Berlin", datetime(2024, 10, 27), 25),
    ],
)
def test_a_day_on_which_the_clocks_change_waits_for_23_or_25_hours(
    zone: str, begin: datetime, hours: int
) -> None:
    days = by(Grain.DAY, begin, zone)
    made = project(source("s", by(Grain.HOUR, begin - timedelta(days=1))), table("t", days, "raw/s"))
    now = utc(begin.year, begin.month, begin.day) + timedelta(days=1, hours=12)
    planned = plan(made, blank(made, now), now)
    (reason,) = verdict(planned, "m/t", 0).reasons
    assert reason.count == hours


def test_a_late_hour_builds_its_day_again_and_then_what_reads_the_day() -> None:
    made = project(source("s", HOURS), table("day", DAYS, "raw/s"), table("week", by(Grain.WEEK), "m/day"))
    now = utc(2024, 3, 11)
    state = blank(made, now)
    for key in ("raw/s", "m/day", "m/week"):
        land(state, key)
    assert plan(made, state, now).requests == ()
    land(state, "raw/s", 30)
    planned = plan(made, state, now)
    assert [(r.tables, r.first, r.last, r.why) for r in planned.requests] == [
        (("m/day",), "2024-03-05", "2024-03-05", "input changed")
    ]
    assert outcomes(planned, "m/week") == [L]
    land(state, "m/day", 1)
    assert runs(plan(made, state, now)) == [(("m/week",), "2024-03-04", "2024-03-04")]


def test_a_rolling_window_waits_for_the_days_before_but_not_for_those_before_begin() -> None:
    made = project(source("s", DAYS), table("t", DAYS, Upstream("raw/s", 6), concurrency=9))
    now = utc(2024, 3, 14)
    state = blank(made, now)
    land(state, "raw/s", [0, 1, 2, 4, 5, 6, 7, 8, 9])
    assert outcomes(plan(made, state, now), "m/t") == [R] * 3 + [W] * 7
    land(state, "raw/s", 3)
    assert outcomes(plan(made, state, now), "m/t") == [R] * 7 + [Outcome.HELD] + [R] * 2


def test_a_week_of_a_month_waits_for_the_month_to_be_over() -> None:
    made = project(source("s", by(Grain.MONTH)), table("t", by(Grain.WEEK), Upstream("raw/s", 1)))
    now = utc(2024, 3, 20)
    planned = plan(made, blank(made, now), now)
    assert verdict(planned, "m/t", 0).reasons == (Reason("raw/s", Outcome.NOT_DUE, 0, 0),)


def test_a_self_dependent_table_is_built_in_order_one_run_at_a_time() -> None:
    own = Upstream("m/t", 1)
    made = project(source("s", DAYS), table("t", DAYS, "raw/s", own, size=2, concurrency=5))
    state = blank(made, NOW)
    land(state, "raw/s")
    planned = plan(made, state, NOW)
    assert runs(planned) == [(("m/t",), "2024-03-04", "2024-03-05")]
    assert verdict(planned, "m/t", 2).reasons == (Reason("m/t", R, 1, 1),)
    land(state, "m/t", [0, 1])
    assert runs(plan(made, state, NOW)) == [(("m/t",), "2024-03-06", "2024-03-06")]


def test_a_late_day_builds_all_later_partitions_of_a_self_dependent_table_again() -> None:
    own = Upstream("m/t", 1)
    made = project(source("s", DAYS), table("t", DAYS, "raw/s", own, size=30), table("u", DAYS, "m/t"))
    state = blank(made, NOW)
    for key in ("raw/s", "m/t", "m/u"):
        land(state, key)
    land(state, "raw/s", 1)
    planned = plan(made, state, NOW)
    assert runs(planned) == [(("m/t",), "2024-03-05", "2024-03-06")]
    assert planned.settled["m/t"].busy.tolist() == [False, True, True]


def test_a_self_dependent_table_that_is_being_built_holds_its_next_run() -> None:
    made = project(source("s", DAYS), table("t", DAYS, "raw/s", Upstream("m/t", 1)))
    state = blank(made, NOW)
    land(state, "raw/s")
    land(state, "m/t")
    land(state, "raw/s", 1)
    state.tables["m/t"].active[2] = Active.RUNNING
    state.tables["m/t"].active_runs = 1
    assert outcomes(plan(made, state, NOW), "m/t") == [L, Outcome.HELD, Outcome.RUNNING]


def test_a_self_dependent_table_that_waits_for_a_retry_says_so() -> None:
    # Regression: the partition that is due for a retry waited for itself.
    made = project(source("s", DAYS), table("t", DAYS, "raw/s", Upstream("m/t", 1)))
    state = blank(made, NOW)
    land(state, "raw/s")
    fail(state, "m/t", 0, NOW)
    assert outcomes(plan(made, state, NOW), "m/t") == [Outcome.RETRYING, W, W]


def test_readers_look_through_views_to_the_tables_below() -> None:
    made = project(
        source("s", DAYS),
        table("v", None, "raw/s", materialized="view"),
        table("t", DAYS, "m/v", Upstream("raw/s", 0, ("v",))),
    )
    state = blank(made, NOW)
    land(state, "raw/s", 0)
    planned = plan(made, state, NOW)
    assert runs(planned) == [(("m/v",), None, None)]
    assert verdict(planned, "m/t", 0).reasons == (Reason("m/v", R, 0, 0),)
    land(state, "m/v")
    assert outcomes(plan(made, state, NOW), "m/t") == [R, W, W]
    land(state, "m/t", 0)
    land(state, "raw/s", 0)
    planned = plan(made, state, NOW)
    assert outcomes(planned, "m/v") == [L]
    assert outcomes(planned, "m/t") == [R, W, W]


def test_a_view_is_made_anew_for_its_code_and_its_readers_wait_for_that_but_are_not_built_again() -> None:
    # Regression: a reader that was ready went ahead with the old definition of the view.
    made = project(
        source("s", DAYS),
        table("v", None, "raw/s", materialized="view", code_version="v2"),
        table("t", DAYS, "m/v", Upstream("raw/s", 0, ("v",))),
    )
    state = blank(made, NOW)
    land(state, "raw/s", [0, 1])
    land(state, "m/v")
    land(state, "m/t", 0)
    planned = plan(made, state, NOW)
    assert [(r.tables, r.why) for r in planned.requests] == [(("m/v",), "code changed")]
    assert outcomes(planned, "m/t") == [L, W, W]


def test_a_view_whose_code_is_unknown_is_made_once() -> None:
    # Regression: unknown counted as current as long as nothing was ever built with the current code.
    made = project(table("v", materialized="view"))
    state = blank(made, NOW, codes={})
    land(state, "m/v")
    state.tables["m/v"].code[0] = -1
    assert runs(plan(made, state, NOW)) == [(("m/v",), None, None)]


def test_tables_that_read_the_same_partition_share_a_run() -> None:
    made = project(
        source("s", DAYS),
        table("a", DAYS, "raw/s", concurrency=9),
        table("b", DAYS, "m/a", concurrency=9),
        table("c", DAYS, "m/a", "m/b", concurrency=9),
        table("back", DAYS, Upstream("m/a", 1), concurrency=9),
    )
    state = blank(made, NOW)
    land(state, "raw/s", [0, 1])
    assert runs(plan(made, state, NOW)) == [
        (("m/a", "m/b", "m/c"), "2024-03-05", "2024-03-05"),
        (("m/a", "m/b", "m/c"), "2024-03-04", "2024-03-04"),
    ]


def test_a_table_that_is_isolated_has_runs_of_its_own() -> None:
    made = project(
        source("s", DAYS),
        table("a", DAYS, "raw/s"),
        table("alone", DAYS, "m/a", isolation="table"),
        table("b", DAYS, "m/a"),
        table("c", DAYS, "m/alone", "m/b"),
    )
    state = blank(made, NOW)
    land(state, "raw/s", 0)
    day = ("2024-03-04", "2024-03-04")
    assert runs(plan(made, state, NOW)) == [(("m/a", "m/b"), *day)]
    land(state, "m/a", 0)
    land(state, "m/b", 0)
    assert runs(plan(made, state, NOW)) == [(("m/alone",), *day)]
    land(state, "m/alone", 0)
    assert runs(plan(made, state, NOW)) == [(("m/c",), *day)]


def test_a_reader_that_has_landed_joins_the_run_of_its_input() -> None:
    made = project(source("s", DAYS), table("a", DAYS, "raw/s"), table("b", DAYS, "m/a"))
    state = blank(made, NOW)
    for key in ("raw/s", "m/a", "m/b"):
        land(state, key)
    land(state, "raw/s", 1)
    assert runs(plan(made, state, NOW)) == [(("m/a", "m/b"), "2024-03-05", "2024-03-05")]


def test_contiguous_partitions_share_a_run_up_to_the_size_of_its_first_table() -> None:
    made = project(
        source("s", HOURS),
        table("a", HOURS, "raw/s", size=10, concurrency=2),
        table("b", HOURS, "m/a", size=24, concurrency=2),
    )
    state = blank(made, NOW)
    land(state, "raw/s", [*range(4), *range(5, 72)])
    assert runs(plan(made, state, NOW)) == [
        (("m/a", "m/b"), "2024-03-06-22:00", "2024-03-06-23:00"),
        (("m/a", "m/b"), "2024-03-04-00:00", "2024-03-04-03:00"),
    ]


def test_a_table_that_builds_fewer_partitions_in_a_run_does_not_cut_the_runs_of_what_it_reads() -> None:
    # Regression: the smallest size cut the runs of all connected tables: 72 of them here, each of one hour.
    made = project(
        source("s", HOURS),
        table("a", HOURS, "raw/s", size=24),
        table("one", HOURS, "m/a", size=1, concurrency=2),
        table("c", HOURS, "m/one", size=24),
        table("d", HOURS, "m/a", size=24),
    )
    state = blank(made, NOW)
    land(state, "raw/s", 0)
    first = ("2024-03-04-00:00", "2024-03-04-00:00")
    assert runs(plan(made, state, NOW)) == [(("m/a", "m/one", "m/c", "m/d"), *first)]
    land(state, "raw/s", range(1, 70))
    planned = plan(made, state, NOW)
    assert runs(planned) == [(("m/a", "m/d"), "2024-03-04-00:00", "2024-03-04-23:00")]
    assert outcomes(planned, "m/one")[0] is Outcome.HELD
    land(state, "m/a", range(24))
    land(state, "m/d", range(24))
    state.tables["m/a"].active_runs = 1
    assert runs(plan(made, state, NOW)) == [
        (("m/one", "m/c"), "2024-03-04-00:00", "2024-03-04-00:00"),
        (("m/one",), "2024-03-04-01:00", "2024-03-04-01:00"),
    ]


def test_a_busy_reader_does_not_hold_what_it_reads() -> None:
    # Regression: one table of a shared run without room held all the others.
    made = project(
        source("s", DAYS),
        table("a", DAYS, "raw/s", size=9),
        table("b", DAYS, "m/a"),
        table("c", DAYS, "m/b"),
    )
    state = blank(made, NOW)
    land(state, "raw/s")
    state.tables["m/b"].active_runs = 1
    planned = plan(made, state, NOW)
    assert runs(planned) == [(("m/a",), "2024-03-04", "2024-03-06")]
    assert outcomes(planned, "m/b") == outcomes(planned, "m/c") == [Outcome.HELD] * 3


def test_a_table_has_as_many_runs_as_its_concurrency_allows() -> None:
    made = project(source("s", DAYS), table("t", DAYS, "raw/s", concurrency=2))
    state = blank(made, NOW)
    land(state, "raw/s")
    assert outcomes(plan(made, state, NOW), "m/t") == [Outcome.HELD, R, R]
    state.tables["m/t"].active_runs = 1
    state.tables["m/t"].active[2] = Active.QUEUED
    assert outcomes(plan(made, state, NOW), "m/t") == [Outcome.HELD, R, Outcome.QUEUED]


def test_dbts_own_incremental_has_one_run_at_a_time() -> None:
    # Regression: its concurrency was taken from the backfill settings.
    made = project(source("s", DAYS), table("t", DAYS, "raw/s", concurrency=9, materialized="incremental"))
    state = blank(made, NOW)
    land(state, "raw/s")
    assert outcomes(plan(made, state, NOW), "m/t") == [R, Outcome.HELD, Outcome.HELD]


def test_current_partitions_come_first_then_the_oldest_and_the_rest_is_held() -> None:
    made = project(
        source("s", DAYS), table("a", DAYS, "raw/s", concurrency=9), table("b", DAYS, "raw/s", concurrency=9)
    )
    now = utc(2024, 3, 14)
    state = blank(made, now)
    land(state, "raw/s")
    assert runs(plan(made, state, now, max_requests=6)) == [
        (("m/a",), "2024-03-12", "2024-03-12"),
        (("m/b",), "2024-03-12", "2024-03-12"),
        (("m/a",), "2024-03-13", "2024-03-13"),
        (("m/b",), "2024-03-13", "2024-03-13"),
        (("m/a",), "2024-03-04", "2024-03-04"),
        (("m/b",), "2024-03-04", "2024-03-04"),
    ]


def test_a_run_that_reaches_what_is_current_is_not_cut_in_two() -> None:
    made = project(source("s", DAYS), table("a", DAYS, "raw/s", size=10), table("b", DAYS, "raw/s", size=9))
    now = utc(2024, 3, 14)
    state = blank(made, now)
    land(state, "raw/s")
    assert runs(plan(made, state, now)) == [
        (("m/a",), "2024-03-04", "2024-03-13"),
        (("m/b",), "2024-03-04", "2024-03-12"),
    ]


def test_what_dbts_own_incremental_adds_may_depend_on_what_is_there_so_the_oldest_comes_first() -> None:
    made = project(source("s", DAYS), table("a", DAYS, "raw/s", materialized="incremental"))
    state = blank(made, NOW)
    land(state, "raw/s")
    assert runs(plan(made, state, NOW)) == [(("m/a",), "2024-03-04", "2024-03-04")]


def test_a_failed_partition_is_tried_again_after_a_wait_that_doubles() -> None:
    made = project(source("s", DAYS), table("t", DAYS, "raw/s", retries=Retries(2, 30)))
    state = blank(made, NOW)
    land(state, "raw/s", 0)
    for times, wait in ((1, 30), (2, 60)):
        fail(state, "m/t", 0, NOW, seconds_ago=wait - 1, times=times)
        planned = plan(made, state, NOW)
        assert outcomes(planned, "m/t")[0] is Outcome.RETRYING
        assert planned.next_change == NOW.timestamp() + 1
        fail(state, "m/t", 0, NOW, seconds_ago=wait, times=times)
        (request,) = plan(made, state, NOW).requests
        assert request.why == "retry"
    fail(state, "m/t", 0, NOW, seconds_ago=9999, times=3)
    assert outcomes(plan(made, state, NOW), "m/t")[0] is Outcome.FAILED


@pytest.mark.parametrize("cause", ["input", "code"])
def test_a_failed_partition_waits_for_a_new_input_or_new_code(cause: str) -> None:
    made = project(source("s", DAYS), table("t", DAYS, "raw/s"))
    state = blank(made, NOW)
    land(state, "raw/s", 0)
    fail(state, "m/t", 0, NOW, seconds_ago=9999, times=2)
    assert outcomes(plan(made, state, NOW), "m/t") == [Outcome.FAILED, W, W]
    if cause == "input":
        land(state, "raw/s", 0)
    else:
        made = project(source("s", DAYS), table("t", DAYS, "raw/s", code_version="v2"))
    assert outcomes(plan(made, state, NOW), "m/t") == [R, W, W]


def test_a_canceled_partition_is_not_tried_again() -> None:
    made = project(source("s", DAYS), table("t", DAYS, "raw/s"))
    state = blank(made, NOW)
    land(state, "raw/s", 0)
    fail(state, "m/t", 0, NOW, seconds_ago=9999)
    state.tables["m/t"].canceled[0] = True
    assert outcomes(plan(made, state, NOW), "m/t") == [Outcome.FAILED, W, W]


def test_readers_go_on_with_the_old_data_of_a_table_that_failed_on_newer_input() -> None:
    made = project(
        source("s", DAYS), source("z", DAYS), table("a", DAYS, "raw/s"), table("b", DAYS, "m/a", "raw/z")
    )
    state = blank(made, NOW)
    for key in ("raw/s", "raw/z", "m/a", "m/b"):
        land(state, key, 0)
    land(state, "raw/s", 0)
    fail(state, "m/a", 0, NOW, times=2)
    land(state, "raw/z", 0)
    planned = plan(made, state, NOW)
    assert (outcomes(planned, "m/a")[0], outcomes(planned, "m/b")[0]) == (Outcome.FAILED, R)


def test_a_blocked_partition_holds_back_its_readers_until_an_input_changes() -> None:
    made = project(source("s", DAYS), table("a", DAYS, "raw/s"), table("b", DAYS, "m/a", concurrency=3))
    state = blank(made, NOW)
    land(state, "raw/s")
    land(state, "m/a")
    state.tables["m/a"].blocked[1] = True
    planned = plan(made, state, NOW)
    assert outcomes(planned, "m/a") == [L, Outcome.BLOCKED, L]
    assert outcomes(planned, "m/b") == [R, W, R]
    assert verdict(planned, "m/b", 1).reasons == (Reason("m/a", Outcome.BLOCKED, 1, 1),)
    land(state, "raw/s", 1)
    assert outcomes(plan(made, state, NOW), "m/a") == [L, R, L]


def test_a_run_that_died_before_the_checks_is_tried_again() -> None:
    # Regression: a partition that was materialized but never checked stayed blocked although its run died.
    made = project(source("s", DAYS), table("t", DAYS, "raw/s"))
    state = blank(made, NOW)
    land(state, "raw/s", 0)
    land(state, "m/t", 0)
    state.tables["m/t"].blocked[0] = True
    fail(state, "m/t", 0, NOW, seconds_ago=31)
    assert outcomes(plan(made, state, NOW), "m/t") == [R, W, W]


def test_a_dirty_source_holds_back_everything_below_it_however_far() -> None:
    # Regression: only its direct readers' readers waited; the next ones went on with what was there.
    made = project(
        source("s", DAYS),
        source("z", DAYS),
        table("a", DAYS, "raw/s"),
        table("b", DAYS, "m/a"),
        table("c", DAYS, "m/b"),
        table("d", DAYS, "m/c", "raw/z"),
    )
    state = blank(made, NOW)
    for key in ("raw/s", "raw/z", "m/a", "m/b", "m/c", "m/d"):
        land(state, key)
    land(state, "raw/s", 1)
    state.tables["raw/s"].blocked[1] = True
    land(state, "raw/z")
    planned = plan(made, state, NOW)
    assert [outcomes(planned, f"m/{name}")[1] for name in "abcd"] == [W, L, L, W]
    assert outcomes(planned, "m/d") == [Outcome.HELD, W, R]
    assert verdict(planned, "m/d", 1).reasons == (Reason("m/c", L, 1, 1),)
    assert verdict(planned, "m/c", 1).reasons == (Reason("m/b", L, 1, 1),)
    assert verdict(planned, "m/b", 1).reasons == (Reason("m/a", W, 1, 1),)


def test_a_manual_table_is_never_requested_and_being_stale_it_holds_nobody() -> None:
    made = project(source("s", DAYS), table("a", DAYS, "raw/s", automation="manual"), table("b", DAYS, "m/a"))
    state = blank(made, NOW)
    land(state, "raw/s")
    planned = plan(made, state, NOW)
    assert outcomes(planned, "m/a") == [Outcome.MANUAL] * 3
    assert verdict(planned, "m/b", 0).reasons == (Reason("m/a", Outcome.MANUAL, 0, 0),)
    land(state, "m/a", [0, 1])
    land(state, "raw/s", 1)
    planned = plan(made, state, NOW)
    assert outcomes(planned, "m/a") == [L, Outcome.MANUAL, Outcome.MANUAL]
    assert verdict(planned, "m/a", 1).stale
    assert outcomes(planned, "m/b") == [Outcome.HELD, R, W]


def test_a_cron_table_is_built_after_the_tick_and_when_its_inputs_are_ready() -> None:
    made = project(source("s", DAYS), table("a", DAYS, "raw/s", automation=SIX), table("b", DAYS, "m/a"))
    state = blank(made, NOW)
    land(state, "raw/s", [0, 1])
    planned = plan(made, state, NOW)  # midnight: the third day is over, the tick comes at six
    assert outcomes(planned, "m/a") == [Outcome.HELD, R, Outcome.SCHEDULED]
    assert outcomes(planned, "m/b") == [Outcome.HELD, R, W]
    assert planned.next_change == utc(2024, 3, 7, 6).timestamp()
    land(state, "m/a", [0, 1], at=NOW)
    assert outcomes(plan(made, state, utc(2024, 3, 7, 6)), "m/a") == [L, L, W]
    land(state, "raw/s", 2)
    assert outcomes(plan(made, state, utc(2024, 3, 7, 6, 20)), "m/a") == [L, L, R]


def test_a_cron_table_is_built_again_once_after_a_tick_and_holds_nobody_meanwhile() -> None:
    made = project(source("s", DAYS), table("a", DAYS, "raw/s", automation=SIX), table("b", DAYS, "m/a"))
    state = blank(made, NOW)
    for key in ("raw/s", "m/a"):
        land(state, key, at=utc(2024, 3, 7, 7))
    land(state, "raw/s", 1, at=utc(2024, 3, 7, 9))
    planned = plan(made, state, utc(2024, 3, 7, 10))
    assert outcomes(planned, "m/a") == [L, Outcome.SCHEDULED, L]
    assert runs(planned) == [(("m/b",), "2024-03-05", "2024-03-05")]
    # Three ticks were missed: one build.
    planned = plan(made, state, utc(2024, 3, 10, 8))
    assert outcomes(planned, "m/a")[:3] == [L, R, L]
    land(state, "m/a", 1, at=utc(2024, 3, 10, 8, 1))
    assert outcomes(plan(made, state, utc(2024, 3, 10, 9)), "m/a")[:3] == [L, L, L]


def test_a_cron_table_without_partitions_is_built_at_each_tick_when_nothing_above_it_is_busy() -> None:
    made = project(source("s", DAYS), table("a", DAYS, "raw/s"), table("w", None, "m/a", automation=SIX))
    state = blank(made, NOW)
    for key in ("raw/s", "m/a", "m/w"):
        land(state, key, at=utc(2024, 3, 7, 1))
    assert outcomes(plan(made, state, utc(2024, 3, 7, 5, 59)), "m/w") == [L]
    assert outcomes(plan(made, state, utc(2024, 3, 7, 6)), "m/w") == [R]
    state.tables["m/a"].active[2] = Active.RUNNING
    assert outcomes(plan(made, state, utc(2024, 3, 7, 6)), "m/w") == [W]
    state.tables["m/a"].active[2] = Active.NO
    land(state, "m/w", at=utc(2024, 3, 7, 6, 5))
    assert outcomes(plan(made, state, utc(2024, 3, 7, 23)), "m/w") == [L]


def test_nothing_of_a_paused_table_is_built_and_afterwards_what_was_missed() -> None:
    made = project(source("s", DAYS), table("a", DAYS, "raw/s"), table("b", DAYS, "m/a"))
    state = blank(made, NOW)
    land(state, "raw/s")
    land(state, "m/a", [0, 1])
    land(state, "raw/s", 0)
    state.paused = {"m/a": Pause(utc(2024, 3, 8).timestamp(), "a reason", "somebody", 0)}
    planned = plan(made, state, NOW)
    assert outcomes(planned, "m/a") == [Outcome.PAUSED, L, Outcome.PAUSED]
    assert outcomes(planned, "m/b") == [Outcome.HELD, R, W]  # with what has landed
    assert verdict(planned, "m/b", 2).reasons == (Reason("m/a", Outcome.PAUSED, 2, 2),)
    assert planned.next_change <= utc(2024, 3, 8).timestamp()
    assert outcomes(plan(made, state, utc(2024, 3, 8)), "m/a")[:3] == [Outcome.HELD, L, R]


def test_a_manual_self_dependent_table_is_not_about_to_be_built_because_a_person_builds_one_day() -> None:
    # Regression: all its later partitions counted as busy.
    own = Upstream("m/a", 1)
    made = project(
        source("s", DAYS),
        table("a", DAYS, "raw/s", own, automation="manual"),
        table("b", DAYS, "m/a", size=3),
    )
    state = blank(made, NOW)
    for key in ("raw/s", "m/a"):
        land(state, key)
    state.tables["m/a"].active[0] = Active.RUNNING
    state.tables["m/a"].active_runs = 1
    assert outcomes(plan(made, state, NOW), "m/b") == [W, R, R]


def test_a_whole_table_waits_for_partitions_in_progress_and_runs_once_after_them() -> None:
    made = project(source("s", DAYS), table("a", DAYS, "raw/s"), table("w", None, "m/a"))
    state = blank(made, NOW)
    land(state, "raw/s", [0, 1])
    land(state, "m/a", 0)
    planned = plan(made, state, NOW)
    assert verdict(planned, "m/w", 0).reasons == (Reason("m/a", R, 1, 1),)
    land(state, "m/a", 1)
    assert runs(plan(made, state, NOW)) == [(("m/w",), None, None)]
    land(state, "m/w")
    assert plan(made, state, NOW).requests == ()


def test_a_refresh_of_an_unpartitioned_table_builds_no_partitions_again() -> None:
    made = project(source("codes"), table("dim", None, "raw/codes"), table("t", DAYS, "m/dim", size=3))
    state = blank(made, NOW)
    planned = plan(made, state, NOW)
    assert verdict(planned, "m/t", 2).reasons == (Reason("m/dim", W, 0, 0),)
    land(state, "raw/codes")
    land(state, "m/dim")
    assert runs(plan(made, state, NOW)) == [(("m/t",), "2024-03-04", "2024-03-06")]
    land(state, "m/t")
    land(state, "raw/codes")
    assert runs(plan(made, state, NOW)) == [(("m/dim",), None, None)]


def test_a_run_key_is_the_same_for_the_same_cause_and_another_for_each_new_one() -> None:
    made = project(source("s", DAYS), table("t", DAYS, "raw/s"))
    state = blank(made, NOW)
    land(state, "raw/s", 0)

    def request() -> Request:
        (found,) = plan(made, state, NOW).requests
        return found

    keys = [request().run_key]
    assert request() == replace(request(), run_key=keys[0])
    fail(state, "m/t", 0, NOW, seconds_ago=99)
    keys.append(request().run_key)
    land(state, "m/t", 0)
    land(state, "raw/s", 0)
    keys.append(request().run_key)
    state.tables["m/t"].landed_id[0] = 0
    keys.append(request().run_key)
    state.tables["m/t"].wiped_id = state.cursor + 1
    keys.append(request().run_key)
    assert len(set(keys)) == len(keys)


def test_reasons_fold_neighbouring_partitions_with_the_same_outcome() -> None:
    made = project(source("s", HOURS), table("t", DAYS, "raw/s"))
    state = blank(made, NOW)
    land(state, "raw/s", [3, 4, 10])
    state.tables["raw/s"].blocked[10] = True
    assert verdict(plan(made, state, NOW), "m/t", 0).reasons == (
        Reason("raw/s", W, 0, 2),
        Reason("raw/s", W, 5, 9),
        Reason("raw/s", Outcome.BLOCKED, 10, 10),
        Reason("raw/s", W, 11, 23),
    )


def test_the_plan_can_change_next_when_the_first_window_ends() -> None:
    made = project(source("s", HOURS), table("t", DAYS, "raw/s"))
    now = utc(2024, 3, 5, 4, 20)
    assert plan(made, blank(made, now), now).next_change == utc(2024, 3, 5, 5).timestamp()


def test_latest_reads_the_newest_landed_partition_that_is_over_and_waits_for_none() -> None:
    edge = Upstream("m/dim", window="latest")
    made = project(source("s", DAYS), table("dim", DAYS, "raw/s"), table("a", DAYS, "raw/s", edge))
    state = blank(made, NOW)
    land(state, "raw/s", [1, 2])
    land(state, "m/dim", 1)
    planned = plan(made, state, NOW)
    # The first day has no dimension yet, the last two read that of the second.
    assert outcomes(planned, "m/a") == [W, R, Outcome.HELD]
    assert [reason.key for reason in verdict(planned, "m/a", 0).reasons] == ["raw/s", "m/dim"]
    land(state, "m/a", [1, 2])
    land(state, "m/dim", 2)
    assert outcomes(plan(made, state, NOW), "m/a") == [W, L, L]  # not followed
    followed = replace(edge, on_update="rerun")
    made = project(source("s", DAYS), table("dim", DAYS, "raw/s"), table("a", DAYS, "raw/s", followed))
    assert outcomes(plan(made, state, NOW), "m/a") == [W, L, R]


def test_a_dimension_whose_refreshes_count_makes_every_partition_again() -> None:
    made = project(table("dim"), table("a", DAYS, Upstream("m/dim", on_update="rerun"), size=3))
    state = blank(made, NOW)
    for key in ("m/dim", "m/a"):
        land(state, key)
    assert runs(plan(made, state, NOW)) == []
    land(state, "m/dim")
    assert runs(plan(made, state, NOW)) == [(("m/a",), "2024-03-04", "2024-03-06")]


def test_an_upstream_that_is_not_required_is_waited_for_so_long() -> None:
    edge = Upstream("raw/u", required=False, wait_seconds=7200)
    made = project(source("s", DAYS), source("u", DAYS), table("a", DAYS, "raw/s", edge))
    state = blank(made, NOW)
    land(state, "raw/s")
    land(state, "raw/u", [0, 1])
    state.tables["raw/u"].blocked[0] = True
    planned = plan(made, state, NOW)
    assert outcomes(planned, "m/a") == [W, R, W]
    assert planned.next_change == utc(2024, 3, 7, 2).timestamp()
    # What failed a check is never done without.
    assert outcomes(plan(made, state, utc(2024, 3, 7, 2)), "m/a") == [W, R, Outcome.HELD]
    land(state, "m/a", [1, 2])
    land(state, "raw/u", 2)
    assert outcomes(plan(made, state, utc(2024, 3, 7, 3)), "m/a") == [W, L, R]  # it comes after all


def test_late_data_counts_for_so_long() -> None:
    late = LateData(within_seconds=86400)
    made = project(source("s", DAYS), replace(table("a", DAYS, "raw/s"), late_data=late))
    state = blank(made, NOW)
    for key in ("raw/s", "m/a"):
        land(state, key, at=NOW)
    land(state, "raw/s", 0, at=utc(2024, 3, 6, 1))
    land(state, "raw/s", 2, at=utc(2024, 3, 7, 23))
    assert outcomes(plan(made, state, utc(2024, 3, 7, 23)), "m/a") == [L, L, R]


def test_a_shift_reads_what_comes_later_by_the_parents_clock() -> None:
    made = project(source("s", HOURS), table("a", HOURS, Upstream("raw/s", shift_seconds=3600)))
    state = blank(made, NOW)
    land(state, "raw/s", [1, 2])
    assert outcomes(plan(made, state, NOW), "m/a")[:3] == [R, Outcome.HELD, W]


def test_an_open_table_refreshes_the_current_day_and_ends_it_once_it_is_over() -> None:
    days = replace(DAYS, open=True)
    made = project(source("s", HOURS), table("live", days, "raw/s"), table("daily", DAYS, "m/live"))
    noon = utc(2024, 3, 7, 12)
    state = blank(made, noon)
    assert state.tables["m/live"].count == 4
    land(state, "raw/s", range(72))
    assert outcomes(plan(made, state, noon), "m/live")[3] is W  # for the first hour of the day
    land(state, "m/live", [0, 1, 2], at=noon)
    land(state, "m/daily", at=noon)
    land(state, "raw/s", range(72, 80))
    # Four hours are over that have not landed.
    assert outcomes(plan(made, state, noon), "m/live") == [L, L, L, W]
    land(state, "raw/s", range(80, 84))
    assert outcomes(plan(made, state, noon), "m/live") == [L, L, L, R]
    land(state, "m/live", 3, at=noon)
    planned = plan(made, state, noon)
    assert outcomes(planned, "m/live") == [L, L, L, L]
    assert planned.next_change == utc(2024, 3, 7, 13).timestamp()

    after = utc(2024, 3, 8, 1)
    grown = blank(made, after)
    for key, past in state.tables.items():
        for field in ("landed_id", "as_of", "landed_at", "code"):
            getattr(grown.tables[key], field)[: past.count] = getattr(past, field)
    grown.cursor = state.cursor
    land(grown, "raw/s", range(84, 95))
    planned = plan(made, grown, after)
    # One hour is missing: the day is not what it will be, and nobody takes it for that.
    assert outcomes(planned, "m/live")[3:] == [W, W]
    assert outcomes(planned, "m/daily") == [L, L, L, W]
    land(grown, "raw/s", 95)
    assert outcomes(plan(made, grown, after), "m/live")[3] is R
    land(grown, "m/live", 3, at=after)
    assert outcomes(plan(made, grown, after), "m/daily") == [L, L, L, R]
