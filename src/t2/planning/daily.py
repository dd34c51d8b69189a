"""Which daily tests are due: those that were not evaluated since their time of day."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np

from t2.planning.grid import Grid
from t2.planning.state import State, TableState
from t2.project.model import Daily, Project, Source, Table, Test

DAY = timedelta(days=1)


@dataclass(frozen=True)
class CheckRequest:
    """One run that evaluates tests of a table or source, on partitions `first` to `last` (None: the whole).

    Asking twice for the same thing makes one run, by its `run_key`.
    """

    table: str
    tests: tuple[str, ...]
    first: str | None
    last: str | None
    run_key: str


def daily_checks(project: Project, state: State, now: datetime) -> tuple[list[CheckRequest], float]:
    """Return the runs that daily tests need at `now` (aware), and when the next ones are due (epoch seconds).

    A test of partitions looks at those that landed in the day before its time, or since it was last evaluated
    if that is longer ago. A test of the whole table looks once, and counts for the newest landed partition.
    """
    found: list[CheckRequest] = []
    next_due = float("inf")
    for node in project.nodes():
        past = state.tables[node.key]
        for daily in dict.fromkeys(test.daily for test in node.tests if test.daily):
            due = last_time(daily, now)
            next_due = min(next_due, last_time(daily, due + DAY + timedelta(hours=12)).timestamp())
            tests = [test for test in node.tests if test.daily == daily]
            open_tests = [t for t in tests if past.checked_at.get(t.name, 0.0) < due.timestamp()]
            for (first, last), names in _spans(node, past, open_tests, daily, due).items():
                found.append(_request(node, names, first, last, due))
    return found, next_due


def last_time(daily: Daily, now: datetime) -> datetime:
    """Return the newest moment, not after `now`, at which it is a test's time of day; in UTC."""
    zone = ZoneInfo(daily.timezone)
    day = now.astimezone(zone).date()
    while True:
        moment = datetime.combine(day, daily.at, zone).astimezone(timezone.utc)
        if moment <= now:
            return moment
        day -= DAY


def _spans(
    node: Table | Source, past: TableState, tests: list[Test], daily: Daily, due: datetime
) -> Mapping[tuple[int, int], list[str]]:
    """Return, by first and last partition, the tests that are to look at them."""
    found: dict[tuple[int, int], list[str]] = {}
    landed = past.landed_id > 0
    if not landed.any():
        return found
    newest = int(np.flatnonzero(landed)[-1])
    for test in tests:
        if not test.per_partition:
            found.setdefault((newest, newest), []).append(test.name)
            continue
        checked = past.checked_at.get(test.name)
        since = last_time(daily, due - timedelta(seconds=1))
        if checked is not None:
            since = min(since, last_time(daily, datetime.fromtimestamp(checked, timezone.utc)))
        fresh = landed & (past.landed_at > since.timestamp()) & (past.landed_at <= due.timestamp())
        for span in _ranges(fresh):
            found.setdefault(span, []).append(test.name)
    return found


def _ranges(flags: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Iterator[tuple[int, int]]:
    """Yield the first and last number of each stretch of partitions that is told."""
    edges = np.flatnonzero(np.diff(np.pad(flags.astype(np.int8), 1)))
    yield from ((int(low), int(high) - 1) for low, high in edges.reshape(-1, 2))


def _request(node: Table | Source, names: list[str], first: int, last: int, due: datetime) -> CheckRequest:
    grid = Grid.of(node.partitioning) if node.partitioning else None
    low, high = (grid.key(first), grid.key(last)) if grid else (None, None)
    what = f"{node.key}:{','.join(names)}:{low}:{high}:{due.isoformat()}"
    return CheckRequest(node.key, tuple(names), low, high, hashlib.sha256(what.encode()).hexdigest()[:32])
