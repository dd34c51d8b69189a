from __future__ import annotations

from dataclasses import replace
from datetime import datetime, time, timedelta

from tests.planning.projects import blank, by, project, source, table, utc

from t2.planning.daily import CheckRequest, daily_checks, last_time
from t2.planning.state import State
from t2.project.model import Daily, Grain, Project, Test

HOURS = by(Grain.HOUR)
NOW = utc(2024, 3, 7, 12)
SIX = Daily(time(6), "Europe/Berlin")  # 05:00 UTC in winter


def check(name: str, *, per_partition: bool = True, daily: Daily | None = SIX) -> Test:
    return Test(f"test.p.{name}", name, "m/t", "not_null", "error", per_partition=per_partition, daily=daily)


def landed(made: Project, *hours: datetime) -> State:
    """Let hours of the table land half an hour after they are over."""
    state = blank(made, NOW)
    past = state.tables["m/t"]
    for number, hour in enumerate(hours, 1):
        index = int((hour - utc(2024, 3, 4)).total_seconds() // 3600)
        past.landed_id[index] = number
        past.landed_at[index] = (hour + timedelta(hours=1.5)).timestamp()
    return state


def asked(requests: list[CheckRequest]) -> list[tuple[tuple[str, ...], str | None, str | None]]:
    return [(request.tests, request.first, request.last) for request in requests]


def test_the_partitions_that_landed_in_the_day_before_are_checked_in_stretches() -> None:
    made = project(source("s"), table("t", HOURS, tests=(check("a"), check("b"), check("c", daily=None))))
    state = landed(
        made,
        utc(2024, 3, 6, 2),  # the day before
        *(utc(2024, 3, 6, hour) for hour in (5, 6, 9)),
        utc(2024, 3, 7, 4),  # landed after six
    )
    requests, next_due = daily_checks(made, state, NOW)
    assert asked(requests) == [
        (("a", "b"), "2024-03-06-05:00", "2024-03-06-06:00"),
        (("a", "b"), "2024-03-06-09:00", "2024-03-06-09:00"),
    ]
    assert next_due == utc(2024, 3, 8, 5).timestamp()
    assert daily_checks(made, state, NOW + timedelta(hours=3))[0] == requests  # so that it is one run each


def test_what_was_evaluated_since_six_is_not_due() -> None:
    made = project(source("s"), table("t", HOURS, tests=(check("a"), check("b"))))
    state = landed(made, utc(2024, 3, 6, 5))
    state.tables["m/t"].checked_at = {"a": utc(2024, 3, 7, 5, 1).timestamp()}
    assert asked(daily_checks(made, state, NOW)[0]) == [(("b",), "2024-03-06-05:00", "2024-03-06-05:00")]


def test_days_that_were_missed_are_made_good() -> None:
    made = project(source("s"), table("t", HOURS, tests=(check("a"),)))
    state = landed(made, utc(2024, 3, 4, 2), utc(2024, 3, 4, 7), utc(2024, 3, 6, 10))
    state.tables["m/t"].checked_at = {"a": utc(2024, 3, 4, 5, 30).timestamp()}
    assert asked(daily_checks(made, state, NOW)[0]) == [
        (("a",), "2024-03-04-07:00", "2024-03-04-07:00"),
        (("a",), "2024-03-06-10:00", "2024-03-06-10:00"),
    ]


def test_the_whole_table_is_checked_once_and_an_empty_one_not_at_all() -> None:
    whole = check("whole", per_partition=False)
    made = project(
        source("s"), table("t", HOURS, tests=(whole,)), table("u", tests=(replace(whole, key="m/u"),))
    )
    state = landed(made, utc(2024, 3, 4, 2), utc(2024, 3, 4, 7))
    assert asked(daily_checks(made, state, NOW)[0]) == [
        (("whole",), "2024-03-04-07:00", "2024-03-04-07:00"),
    ]
    state.tables["m/u"].landed_id[0] = 9
    assert asked(daily_checks(made, state, NOW)[0])[1] == (("whole",), None, None)


def test_a_time_of_day_keeps_to_the_clock_when_it_changes() -> None:
    moments = [last_time(SIX, utc(2024, 3, day, 12)) for day in (30, 31)]
    assert moments == [utc(2024, 3, 30, 5), utc(2024, 3, 31, 4)]
    assert last_time(SIX, utc(2024, 3, 31, 3, 59)) == utc(2024, 3, 30, 5)
