"""What to build when a person asks for a table, or for a table and all that reads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from t2.planning.grid import Grid, overlap
from t2.project.model import Project, Table, Upstream


@dataclass(frozen=True)
class Step:
    """One run's worth: tables in dependency order, partitions `first` to `last` (0, 0 when unpartitioned)."""

    tables: tuple[str, ...]
    first: int
    last: int


def steps(
    project: Project, key: str, span: tuple[int, int], now: datetime, *, downstream: bool
) -> list[Step]:
    """Return the runs that build partitions `span` of a table and, if asked, what reads them, in order.

    Readers' partitions whose window is not over at `now` are left out; ranges are cut to each
    table's `backfill.partitions_per_run`.
    """
    spans = {key: span}
    if downstream:
        for table in project.tables.values():
            reached = [
                affected
                for upstream in table.upstreams
                if upstream.key in spans and table.key not in spans
                if (affected := _readers(project, table, upstream, spans[upstream.key], now)) is not None
            ]
            if reached and not table.is_view:
                spans[table.key] = (min(low for low, _ in reached), max(high for _, high in reached))
    return [
        step for name in project.tables if name in spans for step in _cut(project.tables[name], spans[name])
    ]


def _readers(
    project: Project, table: Table, upstream: Upstream, span: tuple[int, int], now: datetime
) -> tuple[int, int] | None:
    """Return which partitions of a reader read a span of an upstream, None if none does."""
    if table.partitioning is None:
        return (0, 0)
    grid = Grid.of(table.partitioning)
    count = grid.count(now)
    read = project.node(upstream.key).partitioning
    if read is None or upstream.window != "overlap":
        return (0, count - 1) if count else None
    back, shift = upstream.back_seconds, upstream.shift_seconds
    low, high = overlap(grid, Grid.of(read), upstream.lookback, count, back=back, shift=shift)
    hits = [index for index in range(count) if low[index] <= span[1] and high[index] > span[0]]
    return (hits[0], hits[-1]) if hits else None


def _cut(table: Table, span: tuple[int, int]) -> Iterator[Step]:
    size = table.backfill.partitions_per_run
    for first in range(span[0], span[1] + 1, size):
        yield Step((table.key,), first, min(first + size - 1, span[1]))
