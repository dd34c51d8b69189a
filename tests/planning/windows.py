"""Partition windows by datetime loops: slow, obvious, and sharing nothing with `t2.planning.grid`."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from functools import cache
from zoneinfo import ZoneInfo

from t2.project.model import Cron, Grain, Partitioning

Window = tuple[datetime, datetime]


def next_wall(grain: Grain, wall: datetime) -> datetime:
    if grain is Grain.HOUR:
        return wall + timedelta(hours=1)
    if grain is Grain.DAY:
        return wall + timedelta(days=1)
    if grain is Grain.WEEK:
        return wall + timedelta(days=7)
    if grain is Grain.MONTH:
        return (wall.replace(day=28) + timedelta(days=4)).replace(day=1)
    return wall.replace(year=wall.year + 1)


def previous_wall(grain: Grain, wall: datetime) -> datetime:
    if grain is Grain.HOUR:
        return wall - timedelta(hours=1)
    if grain is Grain.DAY:
        return wall - timedelta(days=1)
    if grain is Grain.WEEK:
        return wall - timedelta(days=7)
    if grain is Grain.MONTH:
        return (wall - timedelta(days=1)).replace(day=1)
    return wall.replace(year=wall.year - 1)


def first_wall(partitioning: Partitioning) -> datetime:
    """Walk back from begin, an hour or a day at a time, to where a window starts."""
    wall = partitioning.begin.replace(minute=0, second=0, microsecond=0)
    starts = {
        Grain.HOUR: lambda w: True,
        Grain.DAY: lambda w: w.hour == 0,
        Grain.WEEK: lambda w: w.hour == 0 and w.isoweekday() == 1,
        Grain.MONTH: lambda w: w.hour == 0 and w.day == 1,
        Grain.YEAR: lambda w: w.hour == 0 and w.day == 1 and w.month == 1,
    }[partitioning.grain]
    while not starts(wall):
        wall -= timedelta(hours=1)
    return wall


def instant(partitioning: Partitioning, wall: datetime) -> datetime:
    zone = timezone.utc if partitioning.grain is Grain.HOUR else ZoneInfo(partitioning.timezone)
    return wall.replace(tzinfo=zone).astimezone(timezone.utc)


@cache
def walls(partitioning: Partitioning, count: int) -> tuple[datetime, ...]:
    found = [first_wall(partitioning)]
    while len(found) <= count:
        found.append(next_wall(partitioning.grain, found[-1]))
    return tuple(found)


@cache
def windows(partitioning: Partitioning, count: int) -> tuple[Window, ...]:
    edges = [instant(partitioning, wall) for wall in walls(partitioning, count)]
    return tuple((edges[i], edges[i + 1]) for i in range(count))


@cache
def reads(
    reader: Partitioning,
    upstream: Partitioning,
    lookback: int,
    index: int,
    itself: bool = False,
    back: int = 0,
    shift: int = 0,
) -> tuple[int, ...]:
    """Which partitions of the upstream one partition of the reader reads, over or not."""
    wall = walls(reader, index + 1)[index]
    start, end = windows(reader, index + 1)[index]
    for _ in range(lookback):
        wall = previous_wall(reader.grain, wall)
    low, high = instant(reader, wall), start if itself else end
    low += timedelta(seconds=shift - back)
    high += timedelta(seconds=shift)
    count, found = 64, []
    while windows(upstream, count)[-1][1] < high:
        count *= 2
    for number, (opens, closes) in enumerate(windows(upstream, count)):
        if opens < high and closes > low:
            found.append(number)
    return tuple(found)


# The expressions that are drawn by chance: minute, hours, ISO weekdays.
CRONS = {
    "0 6 * * *": (0, {6}, set(range(1, 8))),
    "30 */4 * * *": (30, set(range(0, 24, 4)), set(range(1, 8))),
    "0 0 * * 1": (0, {0}, {1}),
}


@cache
def ticks_before(cron: Cron, now: datetime) -> datetime:
    """Walk back a minute at a time to the newest tick; none of them is at a skipped or doubled time."""
    minute, hours, days = CRONS[cron.expression]
    at = now.astimezone(timezone.utc).replace(second=0, microsecond=0)
    while True:
        wall = at.astimezone(ZoneInfo(cron.timezone))
        if wall.minute == minute and wall.hour in hours and wall.isoweekday() in days:
            return at
        at -= timedelta(minutes=1)
