from __future__ import annotations

from datetime import datetime, timedelta, timezone

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2.definitions.partitions import partition_mapping, partitions_def
from t2.planning.grid import Grid, overlap
from t2.project.model import Grain, Partitioning, Upstream

ZONES = ["UTC", "America/New_York", "Asia/Kolkata", "Europe/Berlin", "Australia/Lord_Howe"]
LENGTH = {Grain.HOUR: 400, Grain.DAY: 500, Grain.WEEK: 110, Grain.MONTH: 40, Grain.YEAR: 8}
PAST = {Grain.HOUR: 60, Grain.DAY: 60, Grain.WEEK: 20, Grain.MONTH: 15, Grain.YEAR: 2}  # over by now

begins = st.datetimes(datetime(2019, 1, 1), datetime(2022, 12, 31))
grains = st.sampled_from(list(Grain))
zones = st.sampled_from(ZONES)


def _now(grid: Grid, count: int) -> datetime:
    return datetime.fromtimestamp(int(grid.boundaries(count)[-1]), timezone.utc)


@settings(max_examples=40)
@given(grains, begins, zones)
def test_dagsters_keys_and_windows_are_those_of_the_grid(grain: Grain, begin: datetime, zone: str) -> None:
    partitioning = Partitioning(grain, begin, "at", zone)
    grid, count = Grid.of(partitioning), LENGTH[grain]
    definition = partitions_def(partitioning)
    assert definition is not None
    keys = definition.get_partition_keys(current_time=_now(grid, count))
    assert keys == grid.keys(range(count))
    windows = [definition.time_window_for_partition_key(key) for key in keys]
    edges = grid.boundaries(count).tolist()
    assert [int(w.start.timestamp()) for w in windows] == edges[:-1]
    assert [int(w.end.timestamp()) for w in windows] == edges[1:]


@pytest.mark.parametrize(
    ("zone", "around"),
    [("America/New_York", datetime(2024, 3, 8)), ("America/New_York", datetime(2024, 11, 1))],
)
def test_a_day_on_which_the_clocks_change_has_23_or_25_hours(zone: str, around: datetime) -> None:
    partitioning = Partitioning(Grain.DAY, around, "at", zone)
    definition = partitions_def(partitioning)
    assert definition is not None
    day = (around + timedelta(days=2)).strftime("%Y-%m-%d")
    window = definition.time_window_for_partition_key(day)
    hours = (window.end.timestamp() - window.start.timestamp()) / 3600
    assert hours == (23 if around.month == 3 else 25)


@settings(max_examples=60)
@given(
    grains, grains, begins, begins, st.sampled_from(["UTC", "America/New_York"]), st.integers(0, 5), st.data()
)
def test_the_mapping_of_an_edge_is_the_overlap_of_the_grids(
    mine: Grain,
    theirs: Grain,
    begin: datetime,
    other: datetime,
    zone: str,
    lookback: int,
    data: st.DataObject,
) -> None:
    if Grain.HOUR in (mine, theirs):
        zone = "UTC"
    if theirs is Grain.HOUR:  # keep the upstream short enough to list
        other = begin - timedelta(days=data.draw(st.integers(-10, 10)))
    reader, upstream = Partitioning(mine, begin, "at", zone), Partitioning(theirs, other, "at", zone)
    index = data.draw(st.integers(0, PAST[mine] - 1))
    _compare(reader, upstream, lookback, index)


def _compare(
    reader: Partitioning, upstream: Partitioning, lookback: int, index: int, itself: bool = False
) -> None:
    grid, other, count = Grid.of(reader), Grid.of(upstream), PAST[reader.grain]
    mapping = partition_mapping(reader, upstream, Upstream("x", lookback), itself=itself)
    assert mapping is not None
    low, high = overlap(grid, other, lookback, count, itself)
    now = _now(grid, count) + timedelta(days=800)  # every partition that could be read is over
    downstream, upper = partitions_def(reader), partitions_def(upstream)
    assert downstream is not None
    assert upper is not None
    result = mapping.get_upstream_mapped_partitions_result_for_partitions(
        downstream.subset_with_partition_keys([grid.key(index)]), downstream, upper, current_time=now
    )
    assert sorted(result.partitions_subset.get_partition_keys()) == other.keys(range(low[index], high[index]))
    assert not list(result.required_but_nonexistent_subset.get_partition_keys())


@settings(max_examples=30)
@given(grains, begins, st.integers(1, 5), st.data())
def test_a_table_that_reads_itself_reads_its_earlier_partitions(
    grain: Grain, begin: datetime, lookback: int, data: st.DataObject
) -> None:
    partitioning = Partitioning(grain, begin, "at", "UTC")
    index = data.draw(st.integers(0, PAST[grain] - 1))
    _compare(partitioning, partitioning, lookback, index, itself=True)


def test_tables_with_the_same_grid_share_one_definition() -> None:
    first = Partitioning(Grain.DAY, datetime(2024, 1, 1), "flown_on")
    second = Partitioning(Grain.DAY, datetime(2024, 1, 1, 5), "booked_on")
    assert partitions_def(first) is partitions_def(second)


def test_days_of_new_york_that_read_hours_of_utc_load_and_run_in_dagster() -> None:
    hours = Partitioning(Grain.HOUR, datetime(2024, 3, 9), "at")
    days = Partitioning(Grain.DAY, datetime(2024, 3, 9), "at", "America/New_York")
    mapping = partition_mapping(days, hours, Upstream("x"))
    assert mapping == dg.AllPartitionMapping()

    @dg.asset(partitions_def=partitions_def(hours))
    def hourly() -> None: ...

    @dg.asset(partitions_def=partitions_def(days), deps=[dg.AssetDep(hourly, partition_mapping=mapping)])
    def daily() -> None: ...

    defs = dg.Definitions([hourly, daily])
    job = defs.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(asset_selection=[daily.key], partition_key="2024-03-10").success


def test_an_unpartitioned_end_of_an_edge_keeps_dagsters_default() -> None:
    days = Partitioning(Grain.DAY, datetime(2024, 1, 1), "at")
    assert partition_mapping(None, days, Upstream("x")) is None
    assert partition_mapping(days, None, Upstream("x")) is None
