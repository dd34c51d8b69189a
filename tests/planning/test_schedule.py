"""Ticks of cron expressions, also where the clocks change."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.planning.projects import utc
from tests.planning.windows import CRONS, ticks_before

from t2.planning.schedule import last_tick, next_tick
from t2.project.model import Cron

NEW_YORK = "America/New_York"


def at(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, timezone.utc)


@pytest.mark.parametrize(
    ("expression", "now", "last", "following"),
    [
        ("0 6 * * *", utc(2024, 7, 1, 10), utc(2024, 7, 1, 10), utc(2024, 7, 2, 10)),
        ("0 6 * * *", utc(2024, 7, 1, 9, 59), utc(2024, 6, 30, 10), utc(2024, 7, 1, 10)),
        # Half past two does not come on the day that has 23 hours: right after the gap instead.
        ("30 2 * * *", utc(2024, 3, 10, 12), utc(2024, 3, 10, 7), utc(2024, 3, 11, 6, 30)),
        # Half past one comes twice on the day that has 25 hours: the first one counts.
        ("30 1 * * *", utc(2024, 11, 3, 6, 31), utc(2024, 11, 3, 5, 30), utc(2024, 11, 4, 6, 30)),
        # Every hour is every hour of the 25.
        ("0 * * * *", utc(2024, 11, 3, 6, 10), utc(2024, 11, 3, 6), utc(2024, 11, 3, 7)),
    ],
)
def test_ticks_by_the_clock_of_a_time_zone(
    expression: str, now: datetime, last: datetime, following: datetime
) -> None:
    cron = Cron(expression, NEW_YORK)
    assert (at(last_tick(cron, now)), at(next_tick(cron, now))) == (last, following)


@given(
    st.sampled_from(sorted(CRONS)),
    st.sampled_from(["UTC", NEW_YORK]),
    st.integers(0, 366 * 24 * 3600).map(lambda seconds: utc(2024, 1, 1) + timedelta(seconds=seconds)),
)
def test_the_last_tick_is_the_one_that_a_walk_back_finds(expression: str, zone: str, now: datetime) -> None:
    cron = Cron(expression, zone)
    assert at(last_tick(cron, now)) == ticks_before(cron, now)
    assert now < at(next_tick(cron, now))
    assert ticks_before(cron, at(next_tick(cron, now))) == at(next_tick(cron, now))
