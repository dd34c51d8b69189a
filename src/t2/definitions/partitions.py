"""Partitionings as Dagster partitions definitions, upstream windows as Dagster partition mappings.

Both agree with `planning.grid`: same keys, same windows, same overlaps. The one exception is an edge between
time zones (hours of UTC read by days of New York): Dagster's time window mapping refuses it, and a mapping
class of T2's own would not reach the webserver and the daemons, which only know Dagster's. There each
partition is said to depend on all partitions of the upstream, which holds a backfill back too long rather
than too short; T2's planner keeps to the exact window.
"""

from __future__ import annotations

import warnings
from functools import cache

import dagster as dg

from t2.definitions._dagster.tags import PARTITION_RANGE_END_TAG, PARTITION_RANGE_START_TAG, PARTITION_TAG
from t2.planning.grid import DAY_FORMAT, HOUR_FORMAT, Grid
from t2.project.model import Grain, Partitioning, Upstream

CRON = {
    Grain.HOUR: "0 * * * *",
    Grain.DAY: "0 0 * * *",
    Grain.WEEK: "0 0 * * 1",
    Grain.MONTH: "0 0 1 * *",
    Grain.YEAR: "0 0 1 1 *",
}


# The shortest that a partition can be.
SECONDS = {
    Grain.HOUR: 3600,
    Grain.DAY: 23 * 3600,
    Grain.WEEK: (7 * 24 - 1) * 3600,
    Grain.MONTH: (28 * 24 - 1) * 3600,
    Grain.YEAR: 365 * 24 * 3600,
}


def partitions_def(partitioning: Partitioning | None) -> dg.TimeWindowPartitionsDefinition | None:
    """Return the partitions definition of a partitioning; tables with the same grid share one object."""
    return None if partitioning is None else _of_grid(Grid.of(partitioning))


def partition_mapping(
    reader: Partitioning | None, upstream: Partitioning | None, edge: Upstream, *, itself: bool = False
) -> dg.PartitionMapping | None:
    """Return the mapping of one edge; None where Dagster's default says the same.

    Unpartitioned readers depend on all partitions, partitioned ones on the whole of an unpartitioned table.
    Dagster counts in partitions of the reader: windows of a duration become as many as they touch.
    """
    if upstream is None or (reader is None and edge.window != "latest"):
        return None
    if edge.window == "latest":
        return dg.LastPartitionMapping()
    if reader is None:
        return None
    if edge.window == "all" or _timezone(reader) != _timezone(upstream):
        return dg.AllPartitionMapping()
    if itself:
        return _window(-edge.lookback, -1)
    own = SECONDS[reader.grain]
    first = (edge.shift_seconds - edge.back_seconds) // own
    return _window(first - edge.lookback, -(-edge.shift_seconds // own))


def partition_tags(first: str | None, last: str | None) -> dict[str, str]:
    """Return the tags by which Dagster knows a run's partitions `first` to `last`; None: it has none."""
    if first is None or last is None:
        return {}
    if first == last:
        return {PARTITION_TAG: first}
    return {PARTITION_RANGE_START_TAG: first, PARTITION_RANGE_END_TAG: last}


@cache
def _of_grid(grid: Grid) -> dg.TimeWindowPartitionsDefinition:
    return dg.TimeWindowPartitionsDefinition(
        start=grid.key(0),
        fmt=HOUR_FORMAT if grid.grain is Grain.HOUR else DAY_FORMAT,
        cron_schedule=CRON[grid.grain],
        timezone=grid.timezone,
        end=None if grid.total is None else grid.key(grid.total),
        end_offset=int(grid.open),
    )


@cache
def _window(start_offset: int, end_offset: int) -> dg.TimeWindowPartitionMapping:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # allow_nonexistent_upstream_partitions is still marked beta
        return dg.TimeWindowPartitionMapping(
            start_offset, end_offset, allow_nonexistent_upstream_partitions=True
        )


def _timezone(partitioning: Partitioning) -> str:
    return "UTC" if partitioning.grain is Grain.HOUR else partitioning.timezone
