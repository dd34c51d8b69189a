"""Grids and their overlaps against datetime loops."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.planning.windows import instant, previous_wall, reads, walls, windows

from t2.errors import NotFound
from t2.planning.grid import Grid, overlap
from t2.project.model import Grain, Partitioning

# Havana, Beirut and São Paulo change their clocks at midnight: a day begins at 01:00, or its first hour comes
# twice.
ZONES = [
    "UTC",
    "America/New_York",
    "Asia/Kolkata",
    "Europe/Berlin",
    "America/Havana",
    "Asia/Beirut",
    "America/Sao_Paulo",
]
LENGTH = {Grain.HOUR: 300, Grain.DAY: 400, Grain.WEEK: 60, Grain.MONTH: 30, Grain.YEAR: 5}

# Around clock changes, leap days and year ends more often than by chance.
begins = st.one_of(
    st.datetimes(datetime(2015, 1, 1), datetime(2024, 12, 31)),
    st.builds(
        lambda day, back: day - timedelta(hours=back),
        st.sampled_from(
            [
                datetime(2024, 2, 29),
                datetime(2024, 3, 10),
                datetime(2024, 3, 31),
                datetime(2024, 11, 3),
                datetime(2024, 10, 27),
                datetime(2018, 11, 4),
                datetime(2018, 2, 18),
                datetime(2023, 12, 31),
            ]
        ),
        st.integers(0, 72),
    ),
)
partitionings = st.builds(
    Partitioning, st.sampled_from(list(Grain)), begins, st.just("at"), st.sampled_from(ZONES)
)


def epoch(moment: datetime) -> int:
    return int(moment.timestamp())


@settings(max_examples=60)
@given(partitionings)
def test_windows_are_those_of_a_calendar(partitioning: Partitioning) -> None:
    count = LENGTH[partitioning.grain]
    grid, expected = Grid.of(partitioning), windows(partitioning, count)
    assert grid.boundaries(count).tolist() == [epoch(expected[0][0]), *(epoch(end) for _, end in expected)]
    assert grid.window(3) == expected[3]
    assert grid.window(1, 3) == (expected[1][0], expected[3][1])


def test_a_begin_that_names_the_second_of_two_midnights_starts_at_the_first() -> None:
    # Regression: values that differ in `fold` only are equal, so the first one made decided for all.
    begin = datetime(2018, 11, 1, fold=1)
    grid = Grid.of(Partitioning(Grain.MONTH, begin, "at", "America/Havana"))
    assert grid.window(24)[0] == datetime(2020, 11, 1, 4, tzinfo=timezone.utc)


@settings(max_examples=60)
@given(partitionings, st.integers(0, 29))
def test_a_partition_is_over_from_the_second_its_window_ends(partitioning: Partitioning, index: int) -> None:
    grid = Grid.of(partitioning)
    end = windows(partitioning, 30)[index][1]
    assert grid.count(end) == index + 1
    assert grid.count(end - timedelta(microseconds=1)) == index
    assert grid.count(end + timedelta(microseconds=1)) == index + 1
    assert grid.count(windows(partitioning, 1)[0][0] - timedelta(days=1000)) == 0


@settings(max_examples=60)
@given(partitionings)
def test_keys_round_trip_and_are_local_starts(partitioning: Partitioning) -> None:
    grid, count = Grid.of(partitioning), 30
    form = "%Y-%m-%d-%H:%M" if partitioning.grain is Grain.HOUR else "%Y-%m-%d"
    keys = [wall.strftime(form) for wall in walls(partitioning, count)[:count]]
    assert grid.keys(range(count)) == keys
    assert [grid.index(key) for key in keys] == list(range(count))
    assert grid.indices([*keys, "nonsense"]).tolist() == [*range(count), -1]


@pytest.mark.parametrize(
    ("grain", "key"),
    [
        (Grain.DAY, "2023-12-31"),  # before begin
        (Grain.DAY, "2024-02-30"),
        (Grain.DAY, "2024-W05-1"),
        (Grain.DAY, "2024-01-01-00:00"),
        (Grain.DAY, ""),
        (Grain.WEEK, "2024-01-02"),  # a Tuesday
        (Grain.MONTH, "2024-02-02"),
        (Grain.YEAR, "2024-02-01"),
        (Grain.HOUR, "2024-01-01"),
        (Grain.HOUR, "2024-01-01-05:30"),
        (Grain.HOUR, "2024-01-01-0500Z"),
        (Grain.HOUR, "2024-01-01T05:00"),
    ],
)
def test_a_key_of_no_partition_is_not_found(grain: Grain, key: str) -> None:
    grid = Grid.of(Partitioning(grain, datetime(2024, 1, 1), "at"))
    assert grid.indices([key]).tolist() == [-1]
    with pytest.raises(NotFound, match="there is no"):
        grid.index(key)


@settings(max_examples=100)
@given(partitionings, partitionings, st.integers(0, 7), st.integers(-40, 40), st.booleans(), st.data())
def test_an_upstream_window_is_what_overlaps(
    reader: Partitioning,
    upstream: Partitioning,
    lookback: int,
    later: int,
    near: bool,
    data: st.DataObject,
) -> None:
    if near or Grain.HOUR in (reader.grain, upstream.grain):
        begin = reader.begin + timedelta(days=later)
        upstream = Partitioning(upstream.grain, begin, "at", upstream.timezone)
    count = 20
    low, high = overlap(Grid.of(reader), Grid.of(upstream), lookback, count)
    for index in {0, count - 1, data.draw(st.integers(0, count - 1))}:
        found = tuple(range(low[index], high[index]))
        assert found == reads(reader, upstream, lookback, index)


@settings(max_examples=30)
@given(partitionings, st.integers(1, 7), st.integers(0, 19))
def test_a_self_reference_ends_where_the_partition_starts(
    partitioning: Partitioning, lookback: int, index: int
) -> None:
    grid = Grid.of(partitioning)
    low, high = overlap(grid, grid, lookback, 20, itself=True)
    assert tuple(range(low[index], high[index])) == tuple(range(max(index - lookback, 0), index))


@settings(max_examples=20)
@given(partitionings, partitionings, st.integers(0, 3), st.integers(0, 40), st.integers(0, 40))
def test_an_overlap_does_not_depend_on_how_many_partitions_are_asked_for(
    reader: Partitioning, upstream: Partitioning, lookback: int, few: int, more: int
) -> None:
    few, more = sorted((few, more))
    short = overlap(Grid.of(reader), Grid.of(upstream), lookback, few)
    long = overlap(Grid.of(reader), Grid.of(upstream), lookback, more)
    assert [len(edge) for edge in short] == [few, few]
    assert all(np.array_equal(a, b[:few]) for a, b in zip(short, long, strict=True))


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("America/New_York", datetime(2024, 3, 10), 23),
        ("America/New_York", datetime(2024, 11, 3), 25),
        ("Europe/Berlin", datetime(2024, 3, 31), 23),
        ("Europe/Berlin", datetime(2024, 10, 27), 25),
        ("America/Sao_Paulo", datetime(2018, 11, 4), 23),
        ("America/Havana", datetime(2024, 11, 3), 25),
        ("UTC", datetime(2024, 3, 10), 24),
        ("Asia/Kolkata", datetime(2024, 3, 10), 25),  # from 18:30 to 18:30 UTC: both half hours count
    ],
)
def test_a_day_reads_the_hours_of_utc_that_it_overlaps(zone: str, day: datetime, hours: int) -> None:
    days = Grid.of(Partitioning(Grain.DAY, day - timedelta(days=5), "at", zone))
    utc = Grid.of(Partitioning(Grain.HOUR, day - timedelta(days=20), "at"))
    low, high = overlap(days, utc, 0, 10)
    assert high[5] - low[5] == hours


def test_what_lies_before_an_upstreams_begin_is_not_read() -> None:
    days = Grid.of(Partitioning(Grain.DAY, datetime(2024, 1, 1), "at"))
    hours = Grid.of(Partitioning(Grain.HOUR, datetime(2024, 1, 2, 12), "at"))
    low, high = overlap(days, hours, 1, 4)
    assert list(zip(low.tolist(), high.tolist(), strict=True)) == [(0, 0), (0, 12), (0, 36), (12, 60)]


def test_hours_are_hours_of_utc_whatever_the_time_zone() -> None:
    # Regression: hourly tables with different time zones had different grids and never shared a run.
    utc = Partitioning(Grain.HOUR, datetime(2024, 1, 1), "at")
    kolkata = Partitioning(Grain.HOUR, datetime(2024, 1, 1, 0, 30), "at", "Asia/Kolkata")
    assert Grid.of(utc) is Grid.of(kolkata)


@settings(max_examples=60)
@given(partitionings, st.integers(0, 29), st.integers(0, 7))
def test_back_steps_over_the_calendar(partitioning: Partitioning, index: int, steps: int) -> None:
    # Regression: from a day that begins at 01:00, because midnight is skipped, back gave 01:00 of another.
    wall = walls(partitioning, 30)[index]
    for _ in range(steps):
        wall = previous_wall(partitioning.grain, wall)
    start = windows(partitioning, 30)[index][0]
    assert Grid.of(partitioning).back(start, steps) == instant(partitioning, wall)


@settings(max_examples=60)
@given(partitionings, st.integers(0, 9), st.integers(0, 9), st.data())
def test_widen_gives_the_whole_partitions_around_a_window(
    partitioning: Partitioning, first: int, last: int, data: st.DataObject
) -> None:
    first, last = sorted((first, last))
    edges = windows(partitioning, 10)
    inside = st.integers(0, 10**6 - 1)

    def within(index: int) -> datetime:
        start, end = edges[index]
        return start + (end - start) * data.draw(inside) / 10**6

    start, end = within(first), within(last)
    if start < end:
        high = edges[last][1] if end > edges[last][0] else end
        assert Grid.of(partitioning).widen(start, end) == (edges[first][0], high)
    whole = (edges[first][0], edges[last][1])
    assert Grid.of(partitioning).widen(*whole) == whole


@settings(max_examples=40)
@given(partitionings, st.integers(0, 29))
def test_at_is_the_partition_that_holds_an_instant(partitioning: Partitioning, index: int) -> None:
    grid = Grid.of(partitioning)
    start, end = windows(partitioning, 30)[index]
    assert [grid.at(start), grid.at(end - timedelta(seconds=1)), grid.at(end)] == [index, index, index + 1]
    assert grid.at(windows(partitioning, 1)[0][0] - timedelta(seconds=1)) == -1
    assert grid.local(start).tzinfo is None
