"""The windows that a node's SQL reads, as the dbt variable `t2`: what `t2.window` filters by.

The same declaration maps partitions in the planner, and the dbt package computes the same windows where dbt
runs without T2; a test holds them equal. All times are naive wall times on the clock of the table that they
filter, as text: that is what event time columns hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

from t2.errors import ConfigError
from t2.planning.grid import Grid
from t2.project.model import Grain, Project, Source, Table, Test, Upstream

WALL_FORMAT = "%Y-%m-%d %H:%M:%S"

Variables = dict[str, Any]


def variables(
    project: Project,
    table: Table,
    first_key: str | None,
    last_key: str | None,
    *,
    now: datetime,
    latest: Mapping[str, str | None] = MappingProxyType({}),
) -> Variables:
    """Return `{"t2": ...}` for building the partitions `first_key` to `last_key` of a table in one statement.

    `latest`: by key of an upstream of which only the latest is read, that partition, None for no rows; where
    it is not told, it is the newest that is over. Without keys nothing else is filtered. A partition whose
    window is not over at `now` is refused: built early it would count as landed with a part of its rows.
    """
    if table.partitioning is None or first_key is None or last_key is None:
        windows = {
            project.node(upstream.key).unique_id: _latest_window(project, upstream, now, latest)
            for upstream in table.upstreams
            if upstream.window == "latest"
        }
        return {"t2": {"start": None, "end": None, "windows": windows}}
    grid = Grid.of(table.partitioning)
    first, last = grid.index(first_key), grid.index(last_key)
    if last >= grid.count(now):
        raise ConfigError(
            f"the {grid.grain.value} is not over yet",
            where=f"{table.key} {last_key}",
            hint="a partition is built once its window has ended",
        )
    windows = {}
    for upstream in table.upstreams:
        window = _upstream_window(project, table, upstream, first, last)
        if upstream.window == "latest":
            window = _latest_window(project, upstream, grid.window(last)[1], latest)
        if window is not None:
            windows[project.node(upstream.key).unique_id] = window
    return _own(grid, first, last, windows)


def partition_variables(node: Table | Source, key: str) -> Variables:
    """Return `{"t2": ...}` for a test of one partition: each window is that partition."""
    if node.partitioning is None:
        raise ConfigError("a table without partitions has no partition to test", where=node.key)
    grid = Grid.of(node.partitioning)
    index = grid.index(key)
    start, end = grid.window(index)
    return _own(grid, index, index, {node.unique_id: _window(grid, start, end)})


def predicate(node: Table | Source, first_key: str, last_key: str, *, adapter: str = "") -> str:
    """Return the SQL condition that a row of a table lies in its partitions `first_key` to `last_key`.

    `adapter` is dbt's name of the warehouse: BigQuery's SQL differs.
    """
    partitioning = node.partitioning
    if partitioning is None:
        raise ConfigError("a table without partitions has no partition to filter by", where=node.key)
    grid = Grid.of(partitioning)
    start, end = (
        literal(node, grid, instant, adapter=adapter)
        for instant in grid.window(grid.index(first_key), grid.index(last_key))
    )
    column = partitioning.event_time
    return f"{column} >= {start} and {column} < {end}"


def rows_of_test(
    node: Table | Source, test: Test, first_key: str, last_key: str, *, adapter: str = ""
) -> str:
    """Return the SQL condition for the rows that a test of the partitions looks at."""
    condition = predicate(node, first_key, last_key, adapter=adapter)
    if test.compared_by is None:
        return condition
    same = f"{test.compared_by} in (select {test.compared_by} from {node.relation} where {condition})"
    if adapter != "bigquery" or node.partitioning is None:
        return same
    # All partitions are meant: this is how to say so to a table with require_partition_filter.
    column = node.partitioning.event_time
    return f"({column} is null or {column} is not null) and {same}"


def literal(node: Table | Source, grid: Grid, instant: datetime, *, adapter: str = "") -> str:
    """Return an instant as SQL that a node's event time can be compared with, as `t2.literal` renders it."""
    types = {column.name: column.data_type or "" for column in node.columns}
    column = node.partitioning.event_time if node.partitioning else ""
    wall, utc = grid.local(instant), instant.astimezone(timezone.utc)
    if adapter == "bigquery":
        return _bigquery_literal(types.get(column, ""), wall, utc)
    if is_aware(types.get(column, "")):
        return f"cast('{utc.strftime(WALL_FORMAT)}+00' as timestamptz)"
    return f"cast('{wall.strftime(WALL_FORMAT)}' as timestamp)"


def _bigquery_literal(data_type: str, wall: datetime, utc: datetime) -> str:
    """BigQuery compares a DATE with no TIMESTAMP, but takes a text for either where the type is unknown."""
    kind = data_type.lower()
    midnight = wall == wall.replace(hour=0, minute=0, second=0)
    if kind.startswith("timestamp"):
        return f"timestamp '{utc.strftime(WALL_FORMAT)}+00'"
    if kind.startswith("datetime"):
        return f"datetime '{wall.strftime(WALL_FORMAT)}'"
    if kind.startswith("date"):
        return f"date '{wall if midnight else wall + timedelta(days=1):%Y-%m-%d}'"
    return f"'{wall.strftime('%Y-%m-%d' if midnight else WALL_FORMAT)}'"


def is_aware(data_type: str) -> bool:
    """Return whether a column's type holds instants rather than wall times."""
    return data_type.lower().startswith("timestamptz") or "with time zone" in data_type.lower()


def batch_window(table: Table, key: str) -> tuple[datetime, datetime]:
    """Return a partition's window as dbt's microbatch gives it: wall times that are labelled UTC."""
    assert table.partitioning is not None
    grid = Grid.of(table.partitioning)
    start, end = (grid.local(instant) for instant in grid.window(grid.index(key)))
    return start.replace(tzinfo=timezone.utc), end.replace(tzinfo=timezone.utc)


def _latest_window(
    project: Project, upstream: Upstream, end: datetime, latest: Mapping[str, str | None]
) -> dict[str, Any]:
    """Return the rows of the partition of an upstream that is read by who ends at `end`."""
    partitioning = project.node(upstream.key).partitioning
    assert partitioning is not None
    grid = Grid.of(partitioning)
    if upstream.key not in latest:
        newest = grid.over(end) - 1
        return _window(grid, *grid.window(newest)) if newest >= 0 else _window(grid, end, end)
    key = latest[upstream.key]
    return _window(grid, end, end) if key is None else _window(grid, *grid.window(grid.index(key)))


def _upstream_window(
    project: Project, table: Table, upstream: Upstream, first: int, last: int
) -> dict[str, Any] | None:
    """Return the rows of an upstream that the partitions `first` to `last` read; None for all of them.

    Of a view the macro knows the clock, which is that of the tables under it; it needs the rest alone.
    """
    node = project.node(upstream.key)
    if upstream.window == "all":
        return {"all": True}
    assert table.partitioning is not None
    grid = Grid.of(table.partitioning)
    start, end = grid.window(first, last)
    back = (
        grid.window(first - upstream.lookback)[0]
        if upstream.lookback <= first
        else grid.back(start, upstream.lookback)
    )
    if node.key == table.key:
        return _window(grid, back, start)
    back_seconds, shift = upstream.back_seconds, upstream.shift_seconds
    if node.partitioning is None:
        looked_through = isinstance(node, Table) and node.is_view and node.event_time
        told = {"lookback": upstream.lookback, "back": back_seconds, "shift": shift}
        return told if looked_through else None
    back += timedelta(seconds=shift - back_seconds)
    end += timedelta(seconds=shift)
    reads = Grid.of(node.partitioning)
    if reads.grain.rank > grid.grain.rank:
        return _window(reads, *reads.widen(back, end))
    return _window(reads, back, end)


def _own(grid: Grid, first: int, last: int, windows: dict[str, Any]) -> Variables:
    own = _window(grid, *grid.window(first, last))
    return {"t2": {**own, "grain": grid.grain.value, "windows": windows}}


def _window(grid: Grid, start: datetime, end: datetime) -> dict[str, Any]:
    return {
        "start": grid.local(start).strftime(WALL_FORMAT),
        "end": grid.local(end).strftime(WALL_FORMAT),
        "timezone": "UTC" if grid.grain is Grain.HOUR else grid.timezone,
    }
