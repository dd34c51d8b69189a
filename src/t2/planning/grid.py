"""Grids: a table's partitions numbered 0, 1, 2 … from its begin, and how two grids overlap.

All boundaries are UTC epoch seconds. Days and longer grains are cut at local midnights of the
table's time zone, so a day has 23 or 25 hours where the clocks change; hours are hours of UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta, timezone
from functools import cache, lru_cache
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from t2.errors import NotFound
from t2.project.model import Grain, Partitioning, floor

HOUR_FORMAT = "%Y-%m-%d-%H:%M"
DAY_FORMAT = "%Y-%m-%d"

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Grid:
    """The partitions of one table: `Grid.of(partitioning)` gives the shared instance."""

    def __init__(self, partitioning: Partitioning) -> None:
        self.grain = partitioning.grain
        self.timezone = _clock(partitioning)
        self.open = partitioning.open
        self._zone = ZoneInfo(self.timezone)
        self._begin = floor(self.grain, partitioning.begin)
        # How many partitions there will ever be; None without an end.
        self.total = None if partitioning.end is None else self._ordinal(floor(self.grain, partitioning.end))
        self._boundaries: Ints = np.empty(0, np.int64)

    @staticmethod
    @cache
    def of(partitioning: Partitioning) -> Grid:
        """Return the grid of a partitioning; grids with the same cut are the same object."""
        grain, end = partitioning.grain, partitioning.end
        last = end and floor(grain, end)
        return _grid(grain, floor(grain, partitioning.begin), _clock(partitioning), last, partitioning.open)

    def count(self, now: datetime) -> int:
        """Return how many partitions there are at `now` (aware): those that are over; if open, one more."""
        count = self.over(now) + self.open
        if count == 1 and self.open and now.timestamp() < self.boundaries(1)[0]:
            return 0
        return count if self.total is None else min(count, self.total)

    def over(self, now: datetime) -> int:
        """Return how many partitions are over at `now` (aware)."""
        instant = int(now.timestamp())
        guess = max(self._ordinal(now.astimezone(self._zone).replace(tzinfo=None)) + 2, 1)
        count = int(np.searchsorted(self.boundaries(guess)[1:], instant, side="right"))
        return count if self.total is None else min(count, self.total)

    def next_change(self, count: int) -> float:
        """Return when a table that has `count` partitions gets another one, in epoch seconds."""
        if self.total is not None and count >= self.total:
            return np.inf
        return float(self.boundaries(count + 1)[count + 1 - self.open])

    def boundaries(self, count: int) -> Ints:
        """Return the `count + 1` boundaries of the first `count` partitions, in UTC epoch seconds."""
        if len(self._boundaries) < count + 1:
            self._boundaries = self._cut(max(count + 1, 2 * len(self._boundaries)))
        return self._boundaries[: count + 1]

    def key(self, index: int) -> str:
        """Return Dagster's key of a partition: `2013-01-01-05:00` for hours, else its first day."""
        return self._wall(index).strftime(HOUR_FORMAT if self.grain is Grain.HOUR else DAY_FORMAT)

    def keys(self, indices: Iterable[int]) -> list[str]:
        """Return the keys of many partitions."""
        return [self.key(int(index)) for index in indices]

    def index(self, key: str) -> int:
        """Return the number of the partition with a key; NotFound if the table has no such partition."""
        index = self._index(key)
        if index < 0:
            raise NotFound(
                f"there is no {self.grain.value} partition {key!r}",
                hint=f"the first is {self.key(0)!r}, the next {self.key(1)!r}",
            )
        return index

    def indices(self, keys: Sequence[str]) -> Ints:
        """Return the numbers of many keys, -1 for those that are none of this grid's."""
        return np.fromiter((self._index(key) for key in keys), np.int64, len(keys))

    def window(self, first: int, last: int | None = None) -> tuple[datetime, datetime]:
        """Return the half-open window of the partitions `first` to `last`, in UTC."""
        last = first if last is None else last
        edges = self.boundaries(last + 1)
        return _utc(edges[first]), _utc(edges[last + 1])

    def back(self, instant: datetime, partitions: int) -> datetime:
        """Return the start of the partition that lies `partitions` before the one that starts at `instant`.

        It may lie before `begin`.
        """
        return self._instant(_shift(self.grain, floor(self.grain, self.local(instant)), -partitions))

    def local(self, instant: datetime) -> datetime:
        """Return the naive wall time of an instant on this table's clock: what event time columns hold."""
        return instant.astimezone(self._zone).replace(tzinfo=None)

    def widen(self, start: datetime, end: datetime) -> tuple[datetime, datetime]:
        """Return the smallest window of whole partitions that holds [start, end)."""
        low = self._instant(floor(self.grain, self.local(start)))
        last = floor(self.grain, self.local(end))
        high = self._instant(last)
        return low, high if high >= end else self._instant(_shift(self.grain, last, 1))

    def at(self, instant: datetime) -> int:
        """Return the number of the partition whose window holds an instant; negative before `begin`."""
        return self._ordinal(floor(self.grain, self.local(instant)))

    def _ordinal(self, wall: datetime) -> int:
        begin = self._begin
        if self.grain is Grain.HOUR:
            return int((wall - begin).total_seconds() // 3600)
        if self.grain in (Grain.DAY, Grain.WEEK):
            return (wall.date() - begin.date()).days // (7 if self.grain is Grain.WEEK else 1)
        months = (wall.year - begin.year) * 12 + wall.month - begin.month
        return months if self.grain is Grain.MONTH else wall.year - begin.year

    def _wall(self, index: int) -> datetime:
        return _shift(self.grain, self._begin, index)

    def _instant(self, wall: datetime) -> datetime:
        return wall.replace(tzinfo=self._zone).astimezone(timezone.utc)

    def _cut(self, length: int) -> Ints:
        if self._zone.key == "UTC" and self.grain in (Grain.HOUR, Grain.DAY, Grain.WEEK):
            step = {Grain.HOUR: 3600, Grain.DAY: 86400, Grain.WEEK: 7 * 86400}[self.grain]
            steps: Ints = step * np.arange(length, dtype=np.int64)
            steps += int(self._instant(self._begin).timestamp())
            return steps
        walls = (self._instant(self._wall(index)).timestamp() for index in range(length))
        return np.fromiter((int(instant) for instant in walls), np.int64, length)

    def _index(self, key: str) -> int:
        wall = _parse(self.grain, key)
        if wall is None or wall < self._begin or floor(self.grain, wall) != wall:
            return -1
        index = self._ordinal(wall)
        exists = self.total is None or index < self.total
        return index if exists and self.key(index) == key else -1


@cache
def _grid(grain: Grain, begin: datetime, zone: str, end: datetime | None, is_open: bool) -> Grid:
    return Grid(Partitioning(grain, begin, event_time="", timezone=zone, end=end, open=is_open))


def overlap(
    reader: Grid,
    upstream: Grid,
    lookback: int,
    count: int,
    itself: bool = False,
    back: int = 0,
    shift: int = 0,
) -> tuple[Ints, Ints]:
    """Return, for the reader's first `count` partitions, the upstream's partitions they read as [low, high).

    The window of partition i is [start - lookback own partitions - back, end) moved by `shift` (both in
    seconds), for a self reference it ends at start. Partitions of the upstream before its begin or after its
    end do not exist and are left out; `high` may lie beyond what has landed so far. The arrays are shared:
    they cannot be written to.
    """
    size = 1 << max(count - 1, 1).bit_length()
    low, high = _overlap(reader, upstream, lookback, size, itself, back, shift)
    return low[:count], high[:count]


# By powers of two, so that the end of a window, which adds a partition, does not empty the cache.
@lru_cache(maxsize=1024)
def _overlap(
    reader: Grid, upstream: Grid, lookback: int, count: int, itself: bool, back: int, shift: int
) -> tuple[Ints, Ints]:
    own = np.arange(count, dtype=np.int64)
    if itself or (reader is upstream and not back and not shift):
        low, high = np.maximum(own - lookback, 0), own if itself else own + 1
    else:
        edges = reader.boundaries(count)
        starts = _starts_before(reader, edges, lookback) - back + shift
        ends = edges[1:] + shift
        upstream_edges = upstream.boundaries(max(upstream.at(_utc(edges[-1] + shift)) + 2, 1))
        low = np.searchsorted(upstream_edges[1:], starts, side="right").astype(np.int64)
        high = np.searchsorted(upstream_edges[:-1], ends, side="left").astype(np.int64)
        if upstream.total is not None:
            low, high = np.minimum(low, upstream.total), np.minimum(high, upstream.total)
        high = np.maximum(high, low)
    low.setflags(write=False)
    high.setflags(write=False)
    return low, high


def _starts_before(grid: Grid, edges: Ints, lookback: int) -> Ints:
    """Return the starts of the windows of the first partitions, moved back by `lookback` own partitions."""
    starts: Ints = edges[:-1].copy()
    if lookback and len(starts):
        starts[lookback:] = edges[:-1][: max(len(starts) - lookback, 0)]
        for index in range(min(lookback, len(starts))):
            starts[index] = int(grid.back(_utc(edges[index]), lookback).timestamp())
    return starts


def _clock(partitioning: Partitioning) -> str:
    return "UTC" if partitioning.grain is Grain.HOUR else partitioning.timezone


def _shift(grain: Grain, wall: datetime, count: int) -> datetime:
    if grain is Grain.HOUR:
        return wall + timedelta(hours=count)
    if grain in (Grain.DAY, Grain.WEEK):
        return wall + timedelta(days=count * (7 if grain is Grain.WEEK else 1))
    months = wall.year * 12 + wall.month - 1 + count * (12 if grain is Grain.YEAR else 1)
    return wall.replace(year=months // 12, month=months % 12 + 1)


def _parse(grain: Grain, key: str) -> datetime | None:
    try:
        if grain is Grain.HOUR:
            if len(key) != 16 or key[10] != "-":
                return None
            return datetime.fromisoformat(f"{key[:10]}T{key[11:]}").replace(tzinfo=None)
        return datetime.combine(date.fromisoformat(key), datetime.min.time()) if len(key) == 10 else None
    except ValueError:
        return None


def _utc(epoch: int | np.int64) -> datetime:
    return datetime.fromtimestamp(int(epoch), timezone.utc)
