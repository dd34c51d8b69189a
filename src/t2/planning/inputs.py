"""The inputs of a table as arrays: which partitions have all of theirs, and how new those are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from t2.planning.grid import Grid, Ints, overlap
from t2.planning.state import TableState
from t2.project.model import Project, Source, Table, Upstream

Bools = NDArray[np.bool_]


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

    def is_as(self, other: Settled) -> bool:
        """Whether readers see the same: one state, equal arrays."""
        return (
            self.state is other.state
            and np.array_equal(self.usable, other.usable)
            and np.array_equal(self.busy, other.busy)
            and np.array_equal(self.stuck, other.stuck)
            and np.array_equal(self.ready, other.ready)
        )


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


def inputs_of(project: Project, table: Table, count: int, settled: Mapping[str, Settled]) -> Inputs:
    """Evaluate every edge of a table except its reference to itself."""
    inputs = Inputs(
        complete=np.ones(count, np.bool_),
        newest=np.zeros(count, np.int64),
        together=np.zeros(count, np.bool_),
        busy=np.zeros(count, np.bool_),
        stuck=np.zeros(count, np.bool_),
    )
    for upstream in table.upstreams:
        if upstream.key != table.key:
            _edge(project, table, upstream, settled[upstream.key], inputs)
    for key in table.compares_with:
        inputs.complete &= exists(settled[key])
    return inputs


def exists(offered: Settled) -> bool:
    """Whether any partition was ever built: what a view, or a test of another table, asks for."""
    return bool((offered.state.landed_id > 0).any())


def joins(project: Project, table: Table, upstream: Upstream) -> bool:
    """Whether both ends of an edge may share a run: one grid, the same partition, neither is for itself."""
    node = project.tables.get(upstream.key)
    if node is None or upstream.lookback or upstream.through or upstream.key == table.key:
        return False
    return _shares_runs(table) and _shares_runs(node) and _same_grid(node, table)


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


def window_of(project: Project, table: Table, upstream: Upstream, count: int) -> tuple[Ints, Ints]:
    """Return what the first `count` partitions of a partitioned reader read of a partitioned upstream."""
    node = project.node(upstream.key)
    assert node.partitioning is not None
    assert table.partitioning is not None
    reader, read = Grid.of(table.partitioning), Grid.of(node.partitioning)
    return overlap(reader, read, upstream.lookback, count, itself=upstream.key == table.key)


def _edge(project: Project, table: Table, upstream: Upstream, offered: Settled, inputs: Inputs) -> None:
    node = project.node(upstream.key)
    if table.is_view:
        _view_reader(project, table, upstream, offered, inputs)
    elif isinstance(node, Table) and node.is_view:
        _view(project, table, upstream, offered, inputs)
    elif node.partitioning is None:
        _whole(project, table, upstream, offered, inputs)
    elif table.partitioning is None:
        _whole_reader(offered, inputs)
    elif _same_grid(node, table) and not upstream.lookback:
        _same_partition(project, table, upstream, offered, inputs)
    else:
        _windowed(project, table, upstream, offered, inputs)


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


def _whole(project: Project, table: Table, upstream: Upstream, offered: Settled, inputs: Inputs) -> None:
    """An unpartitioned upstream: its changes count for unpartitioned readers only."""
    if table.partitioning is not None:
        inputs.complete &= bool(offered.state.landed[0])
    else:
        _same_partition(project, table, upstream, offered, inputs)


def _whole_reader(offered: Settled, inputs: Inputs) -> None:
    """An unpartitioned reader of partitions: some landed, none blocked, none about to change."""
    state = offered.state
    busy, stuck = bool(offered.busy.any()), bool(offered.stuck.any())
    some = bool(state.landed.any()) and not bool((state.blocked & (state.landed_id > 0)).any())
    inputs.complete &= some and not busy and not stuck
    inputs.busy |= busy
    inputs.stuck |= stuck
    np.maximum(inputs.newest, int(state.landed_id.max(initial=0)), out=inputs.newest)


def _same_partition(
    project: Project, table: Table, upstream: Upstream, offered: Settled, inputs: Inputs
) -> None:
    """Partition i reads partition i; both may come in one run."""
    if offered.ready.any() and joins(project, table, upstream):
        inputs.complete &= offered.usable | offered.ready
        inputs.together |= offered.ready
    else:
        inputs.complete &= offered.usable
    inputs.busy |= offered.busy
    inputs.stuck |= offered.stuck
    np.maximum(inputs.newest, offered.state.landed_id, out=inputs.newest)


def _windowed(project: Project, table: Table, upstream: Upstream, offered: Settled, inputs: Inputs) -> None:
    low, high = window_of(project, table, upstream, len(inputs.complete))
    inputs.complete &= range_all(offered.usable, low, high)
    if offered.busy.any():
        inputs.busy |= range_any(offered.busy, low, high)
    if offered.stuck.any():
        inputs.stuck |= range_any(offered.stuck, low, high)
    np.maximum(inputs.newest, range_max(offered.state.landed_id, low, high), out=inputs.newest)


def _count(flags: Bools, low: Ints, high: Ints) -> Ints:
    sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(flags, dtype=np.int64)])
    top = len(flags)
    result: Ints = sums[np.minimum(high, top)] - sums[np.minimum(low, top)]
    return result


def _same_grid(node: Table | Source, table: Table) -> bool:
    if node.partitioning is None or table.partitioning is None:
        return node.partitioning is None and table.partitioning is None
    return Grid.of(node.partitioning) is Grid.of(table.partitioning)
