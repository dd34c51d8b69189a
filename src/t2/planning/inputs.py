"""The inputs of a table as arrays: which partitions have all of theirs, and how new those are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from t2.planning.grid import Bools, Grid, Ints, overlap
from t2.planning.schedule import last_tick
from t2.planning.state import TableState, first_difference
from t2.project.model import Cron, LateData, Partitioning, Project, Source, Table, Upstream

ANY_TIME = LateData()


@dataclass
class Settled:
    """What one table or source offers its readers after it was planned; one entry a partition.

    `usable`: landed and neither being built nor about to be. `busy`: it, or something it reads,
    is being built or will be without anybody's help. `stuck`: landed, but something it reads changed and
    it cannot be built again yet. `ready`: requested in this tick.
    """

    state: TableState
    usable: Bools
    busy: Bools
    stuck: Bools
    ready: Bools

    def after(self, first: Settled, start: int, past: TableState) -> Settled:
        """Return this, which begins at a partition, with what another one offers before it."""
        return Settled(
            past,
            np.concatenate([first.usable[:start], self.usable]),
            np.concatenate([first.busy[:start], self.busy]),
            np.concatenate([first.stuck[:start], self.stuck]),
            np.concatenate([first.ready[:start], self.ready]),
        )

    def differs_from(self, other: Settled, start: int = 0) -> int:
        """Return the first partition, from `start` on, of which this and an earlier one differ."""
        top = min(len(self.usable), len(other.usable))
        first = top if self.state is other.state else min(self.state.differs_from(other.state), top)
        for name in ("usable", "busy", "stuck", "ready"):
            if first > start:
                mine, theirs = getattr(self, name)[start:first], getattr(other, name)[start:first]
                first = start + first_difference(mine, theirs)
        return first


@dataclass
class Inputs:
    """All inputs of one table together; arrays over the table's own partitions.

    `complete`: every upstream partition is usable or comes in the same run. `newest`: the greatest
    landed id that counts as a change. `together`: some input is requested for the same run.
    `busy`, `stuck`: some input is.
    """

    complete: Bools
    newest: Ints
    together: Bools
    busy: Bools
    stuck: Bools


def inputs_of(
    project: Project,
    table: Table,
    count: int,
    settled: Mapping[str, Settled],
    now: datetime,
    start: int = 0,
) -> Inputs:
    """Evaluate every edge of a table except that to itself, for the partitions `start` to `count`."""
    size = count - start
    inputs = Inputs(
        complete=np.ones(size, np.bool_),
        newest=np.zeros(size, np.int64),
        together=np.zeros(size, np.bool_),
        busy=np.zeros(size, np.bool_),
        stuck=np.zeros(size, np.bool_),
    )
    for upstream in table.upstreams:
        if upstream.key != table.key:
            _edge(project, table, upstream, settled[upstream.key], now, inputs, start)
    for key in table.compares_with:
        inputs.complete &= exists(settled[key])
    return inputs


def exists(offered: Settled) -> bool:
    """Whether any partition was ever built: what a view, or a test of another table, asks for."""
    return bool((offered.state.landed_id > 0).any())


def joins(project: Project, table: Table, upstream: Upstream) -> bool:
    """Whether both ends of an edge may share a run: one grid, the same partition, neither is for itself."""
    node = project.tables.get(upstream.key)
    if node is None or not upstream.is_plain or upstream.through or upstream.key == table.key:
        return False
    return _shares_runs(table) and _shares_runs(node) and _same_grid(node, table)


def reads_everything(table: Table, upstream: Upstream) -> bool:
    """Whether all partitions of a partitioned upstream are read, as far as they are there."""
    return upstream.window == "all" or (table.partitioning is None and upstream.window == "overlap")


def follows(project: Project, table: Table, upstream: Upstream) -> bool:
    """Whether what changes in the upstream window is a reason to build again.

    By default not where partitions read what they do not follow one by one.
    """
    if upstream.on_update is not None:
        return upstream.on_update == "rerun"
    partitioned = project.node(upstream.key).partitioning is not None
    return table.partitioning is None or (partitioned and upstream.window == "overlap")


def changes(
    table: Table, node: Table | Source, ids: Ints, landed_at: NDArray[np.float64], first: int = 0
) -> Ints:
    """Return the landed ids of a node's partitions, 0 where a landing is too late to change the reader.

    `first`: the number of the first of them.
    """
    late = table.late_data
    if node.partitioning is None or late == ANY_TIME:
        return ids
    if late.action == "ignore":
        return np.zeros_like(ids)
    assert late.within_seconds is not None
    ends = Grid.of(node.partitioning).boundaries(first + len(ids))[first + 1 :]
    return np.where(landed_at > ends + late.within_seconds, 0, ids)


def built_early(partitioning: Partitioning, past: TableState, now: datetime) -> Bools:
    """Return which partitions of an open table are over and were last built before they were."""
    ends = Grid.of(partitioning).boundaries(past.count)[1:]
    early: Bools = (past.landed_at < ends) & (ends <= now.timestamp())
    return early


def overdue(table: Table, upstream: Upstream, offered: Settled | None, count: int, now: datetime) -> Bools:
    """Return which partitions of a reader do without what an upstream has never built.

    Something has to be there to be read: a table's first partition is waited for (`offered`; None: a source).
    Who reads everything does without what was never built anyway.
    """
    if (
        upstream.required
        or reads_everything(table, upstream)
        or (offered is not None and not exists(offered))
    ):
        return np.zeros(count, np.bool_)
    if table.partitioning is None:
        return np.ones(count, np.bool_)
    ends = Grid.of(table.partitioning).boundaries(count)[1:]
    done_without: Bools = ends + upstream.wait_seconds <= now.timestamp()
    return done_without


def patience_end(table: Table, count: int, now: datetime) -> float:
    """Return when the next partition of a reader stops waiting for an upstream that is not required."""
    waits = [upstream.wait_seconds for upstream in table.upstreams if not upstream.required]
    if table.partitioning is None or not waits:
        return np.inf
    ends = Grid.of(table.partitioning).boundaries(count)[1:]
    until = np.add.outer(ends.astype(np.float64), np.unique(waits))
    return float(until[until > now.timestamp()].min(initial=np.inf))


def _shares_runs(table: Table) -> bool:
    return not table.reads_itself and table.isolation == "run"


def range_any(flags: Bools, low: Ints, high: Ints) -> Bools:
    """Whether any flag is set in each [low, high)."""
    found: Bools = _count(flags, low, high) > 0
    return found


def range_all(flags: Bools, low: Ints, high: Ints) -> Bools:
    """Whether every flag is set in each [low, high); windows that reach beyond the flags are not."""
    within: Bools = (high <= len(flags)) | (high == low)
    if flags.all():
        return within
    found: Bools = within & (_count(flags, low, high) == high - low)
    return found


def range_max(values: Ints, low: Ints, high: Ints) -> Ints:
    """Return the greatest value in each [low, high), 0 for an empty window; values must not be negative."""
    if not len(low):
        return np.zeros(0, np.int64)
    padded = np.append(values, 0)
    top = len(values)
    low, high = np.minimum(low, top), np.minimum(high, top)
    pairs = np.stack([low, np.maximum(high, low)], axis=1).ravel()
    greatest = np.maximum.reduceat(padded, pairs)[::2]
    return np.where(high > low, greatest, 0).astype(np.int64)


def window_of(
    project: Project, table: Table, upstream: Upstream, read: TableState, count: int
) -> tuple[Ints, Ints]:
    """Return which partitions of a partitioned upstream the first `count` of a reader read, as [low, high).

    A reader without partitions has one. `read`: the upstream's state, of which `latest` and `all` depend.
    """
    node = project.node(upstream.key)
    assert node.partitioning is not None
    grid = Grid.of(node.partitioning)
    if upstream.window == "latest":
        return _latest(table, grid, read, count)
    if table.partitioning is None or upstream.window == "all":
        return np.zeros(count, np.int64), np.full(count, read.count)
    return overlap(
        Grid.of(table.partitioning),
        grid,
        upstream.lookback,
        count,
        itself=upstream.key == table.key,
        back=upstream.back_seconds,
        shift=upstream.shift_seconds,
    )


def _latest(table: Table, grid: Grid, read: TableState, count: int) -> tuple[Ints, Ints]:
    """Return the newest partition that has landed of those that are over when the reader's is.

    Where none has, it is the newest of those; where there are none, nothing is read.
    """
    over = np.full(count, read.count)
    if table.partitioning is not None:
        ends = Grid.of(table.partitioning).boundaries(count)[1:]
        over = np.searchsorted(grid.boundaries(read.count)[1:], ends, side="right").astype(np.int64)
    numbers = np.arange(read.count)
    newest = np.maximum.accumulate(np.where(read.landed, numbers, -1)) if read.count else numbers
    last = np.append(-1, newest)[over]
    low = np.where(last >= 0, last, np.maximum(over - 1, 0))
    return low, np.minimum(low + 1, over)


def first_affected(project: Project, table: Table, upstream: Upstream, changed: int, count: int) -> int:
    """Return the first partition of a reader that an upstream's partitions from `changed` on can concern.

    Where more than its own window decides, that is the first of all.
    """
    node = project.node(upstream.key)
    if node.partitioning is None or table.partitioning is None or upstream.window != "overlap":
        return 0
    if upstream.is_plain and _same_grid(node, table):
        return changed
    _, high = overlap(
        Grid.of(table.partitioning),
        Grid.of(node.partitioning),
        upstream.lookback,
        count,
        back=upstream.back_seconds,
        shift=upstream.shift_seconds,
    )
    return int(np.searchsorted(high, changed, side="right"))


def _edge(
    project: Project,
    table: Table,
    upstream: Upstream,
    offered: Settled,
    now: datetime,
    inputs: Inputs,
    start: int,
) -> None:
    node = project.node(upstream.key)
    if table.is_view:
        _view_reader(project, table, upstream, offered, inputs)
        return
    if isinstance(node, Table) and node.is_view:
        _view(project, table, upstream, offered, inputs)
        return
    count = start + len(inputs.complete)
    late = overdue(table, upstream, offered if isinstance(node, Table) else None, count, now)[start:]

    def edge(first: int = 0) -> _Edge:
        return _Edge(
            table,
            node,
            offered,
            first,
            follows=follows(project, table, upstream),
            overdue=late,
            together=bool(offered.ready[first:].any()) and joins(project, table, upstream),
        )

    if node.partitioning is None:
        edge().same_partition(inputs) if table.partitioning is None else edge().whole(inputs)
    elif reads_everything(table, upstream):
        edge().everything(inputs, due(table, node, offered, now))
    elif upstream.is_plain and _same_grid(node, table):
        edge(start).same_partition(inputs)
    else:
        low, high = window_of(project, table, upstream, offered.state, count)
        low, high = low[start:], so_far(table, low, high, offered.state.count, now)[start:]
        first = min(int(low.min(initial=offered.state.count)), offered.state.count) if start else 0
        edge(first).windowed(inputs, low - first, high - first)


def so_far(table: Table, low: Ints, high: Ints, top: int, now: datetime) -> Ints:
    """Cut the window of a partition that is not over yet to what there is, `top` partitions in all.

    At least the first one of the window is waited for. `low` and `high` are those of all of a reader's.
    """
    if table.partitioning is None or not table.partitioning.open or not len(high):
        return high
    end = Grid.of(table.partitioning).boundaries(len(high))[-1]
    if end <= now.timestamp():
        return high
    cut: Ints = high.copy()
    cut[-1] = min(cut[-1], max(top, low[-1] + 1))
    return cut


def due(table: Table, node: Table | Source, offered: Settled, now: datetime) -> int:
    """Return how many partitions of a node were over at a reader's newest tick, 0 if it has no ticks."""
    if not isinstance(table.automation, Cron) or node.partitioning is None:
        return 0
    ends = Grid.of(node.partitioning).boundaries(offered.state.count)[1:]
    return int(np.searchsorted(ends, last_tick(table.automation, now), side="right"))


def _view_reader(
    project: Project, table: Table, upstream: Upstream, offered: Settled, inputs: Inputs
) -> None:
    """A view holds no data: what it names has to exist, no more."""
    together = bool(offered.ready.any()) and joins(project, table, upstream)
    inputs.complete &= exists(offered) or together
    inputs.together |= together and not exists(offered)


def _view(project: Project, table: Table, upstream: Upstream, offered: Settled, inputs: Inputs) -> None:
    """Of a view itself counts that it exists and is not being made anew; its data lies below it."""
    served = bool(offered.state.landed_id[0] > 0) and not offered.busy[0]
    inputs.complete &= served or (bool(offered.ready[0]) and joins(project, table, upstream))


class _Edge:
    """One edge to a table or source that holds data.

    Partitions before `first` are left out. `follows`: its changes count, so it is waited for
    while it is busy or stuck. `overdue`: readers that do without what was never built. `together`: both ends
    may share a run, and some of the upstream is ready.
    """

    def __init__(
        self,
        table: Table,
        node: Table | Source,
        offered: Settled,
        first: int,
        *,
        follows: bool,
        overdue: Bools,
        together: bool,
    ) -> None:
        self.state = offered.state
        self.landed_id = offered.state.landed_id[first:]
        self.busy, self.stuck = offered.busy[first:], offered.stuck[first:]
        self.ready = offered.ready[first:]
        self.follows = follows
        self.overdue = overdue
        self.together = together
        self.there = offered.usable[first:] if follows else offered.state.landed[first:]
        self.ids = (
            changes(table, node, self.landed_id, offered.state.landed_at[first:], first) if follows else None
        )
        self.some_overdue = bool(overdue.any())

    def whole(self, inputs: Inputs) -> None:
        """Partitions read a node without partitions."""
        inputs.complete &= bool(self.there[0])
        if self.ids is not None:
            inputs.busy |= bool(self.busy[0])
            inputs.stuck |= bool(self.stuck[0])
            np.maximum(inputs.newest, int(self.ids[0]), out=inputs.newest)

    def everything(self, inputs: Inputs, needed: int) -> None:
        """All partitions are read: some landed, none is blocked or about to change.

        Of the first `needed` the last one has landed, too.
        """
        landed = self.state.landed
        some = bool(landed.any()) and not bool((self.state.blocked & (self.landed_id > 0)).any())
        some = some and (not needed or bool(landed[needed - 1]))
        if self.ids is None:
            inputs.complete &= some
            return
        busy, stuck = bool(self.busy.any()), bool(self.stuck.any())
        inputs.complete &= some and not busy and not stuck
        inputs.busy |= busy
        inputs.stuck |= stuck
        np.maximum(inputs.newest, int(self.ids.max(initial=0)), out=inputs.newest)

    def same_partition(self, inputs: Inputs) -> None:
        """Partition i reads partition i; both may come in one run."""
        there = self.there
        if self.some_overdue:
            there = there | (self.overdue & (self.landed_id == 0))
        if self.together:
            there = there | self.ready
            if self.follows:
                inputs.together |= self.ready
        inputs.complete &= there
        if self.ids is not None:
            inputs.busy |= self.busy & ~self.overdue
            inputs.stuck |= self.stuck & ~self.overdue
            np.maximum(inputs.newest, self.ids, out=inputs.newest)

    def windowed(self, inputs: Inputs, low: Ints, high: Ints) -> None:
        """Each partition reads a stretch of others."""
        there = range_all(self.there, low, high)
        if self.some_overdue:
            top = len(self.there)
            rest = range_all(self.there | (self.landed_id == 0), np.minimum(low, top), np.minimum(high, top))
            there = there | (self.overdue & rest)
        inputs.complete &= there
        if self.ids is not None:
            if self.busy.any():
                inputs.busy |= range_any(self.busy, low, high) & ~self.overdue
            if self.stuck.any():
                inputs.stuck |= range_any(self.stuck, low, high) & ~self.overdue
            np.maximum(inputs.newest, range_max(self.ids, low, high), out=inputs.newest)


def _count(flags: Bools, low: Ints, high: Ints) -> Ints:
    sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(flags, dtype=np.int64)])
    top = len(flags)
    result: Ints = sums[np.minimum(high, top)] - sums[np.minimum(low, top)]
    return result


def _same_grid(node: Table | Source, table: Table) -> bool:
    if node.partitioning is None or table.partitioning is None:
        return node.partitioning is None and table.partitioning is None
    return Grid.of(node.partitioning) is Grid.of(table.partitioning)
