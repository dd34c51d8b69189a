"""The inputs of a table as arrays: which partitions have all of theirs, and how new those are."""

from __future__ import annotations

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
    will be built by itself soon. `ready`: requested in this tick.
    """

    state: TableState
    usable: Bools
    busy: Bools
    ready: Bools


@dataclass
class Inputs:
    """All inputs of one table together; arrays over the table's own partitions.

    `complete`: every upstream partition is usable or comes in the same run. `newest`: the greatest
    landed id that counts as a change. `together`: some input is requested for the same run.
    `busy`: some input will be built by itself soon.
    """

    complete: Bools
    newest: Ints
    together: Bools
    busy: Bools


def inputs_of(project: Project, table: Table, count: int, settled: dict[str, Settled]) -> Inputs:
    """Evaluate every edge of a table except its reference to itself."""
    inputs = Inputs(
        complete=np.ones(count, np.bool_),
        newest=np.zeros(count, np.int64),
        together=np.zeros(count, np.bool_),
        busy=np.zeros(count, np.bool_),
    )
    for upstream in table.upstreams:
        if upstream.key != table.key:
            _edge(project, table, upstream, settled[upstream.key], inputs)
    return inputs


def joins(project: Project, table: Table, upstream: Upstream) -> bool:
    """Whether both ends of an edge may share a run: one grid, the same partition, neither self-dependent."""
    node = project.node(upstream.key)
    return (
        isinstance(node, Table)
        and node.key != table.key
        and not node.reads_itself
        and not table.reads_itself
        and upstream.lookback == 0
        and not upstream.through
        and _same_grid(node, table)
    )


def range_any(flags: Bools, low: Ints, high: Ints) -> Bools:
    """Whether any flag is set in each [low, high)."""
    found: Bools = _count(flags, low, high) > 0
    return found


def range_all(flags: Bools, low: Ints, high: Ints) -> Bools:
    """Whether every flag is set in each [low, high); windows that reach beyond the flags are not."""
    found: Bools = (high <= len(flags)) & (_count(flags, low, high) == high - low)
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


def _edge(project: Project, table: Table, upstream: Upstream, offered: Settled, inputs: Inputs) -> None:
    node = project.node(upstream.key)
    if table.is_view:
        _view(project, table, upstream, offered, inputs)
    elif isinstance(node, Table) and node.is_view:
        inputs.complete &= offered.state.landed_id[0] > 0
    elif node.partitioning is None:
        _whole_upstream(project, table, upstream, offered, inputs)
    elif table.partitioning is None:
        _whole_reader(offered, inputs)
    else:
        _windowed(project, table, upstream, offered, inputs)


def _view(project: Project, table: Table, upstream: Upstream, offered: Settled, inputs: Inputs) -> None:
    """A view holds no data: what it names has to exist, no more."""
    exists = bool((offered.state.landed_id > 0).any())
    together = bool(offered.ready.any()) and joins(project, table, upstream)
    inputs.complete &= exists or together
    inputs.together |= together and not exists


def _whole_upstream(
    project: Project, table: Table, upstream: Upstream, offered: Settled, inputs: Inputs
) -> None:
    """An unpartitioned upstream: its changes count for unpartitioned readers only."""
    if table.partitioning is not None:
        inputs.complete &= bool(offered.state.landed[0])
        return
    together = offered.ready[0] and joins(project, table, upstream)
    inputs.complete &= bool(offered.usable[0] or together)
    inputs.together |= bool(together)
    inputs.busy |= bool(offered.busy[0])
    np.maximum(inputs.newest, offered.state.landed_id[0], out=inputs.newest)


def _whole_reader(offered: Settled, inputs: Inputs) -> None:
    """An unpartitioned reader of partitions: some landed, none blocked, none about to change by itself."""
    state = offered.state
    some = bool(state.landed.any()) and not bool((state.blocked & (state.landed_id > 0)).any())
    inputs.complete &= some and not bool(offered.busy.any())
    inputs.busy |= bool(offered.busy.any())
    np.maximum(inputs.newest, int(state.landed_id.max(initial=0)), out=inputs.newest)


def _windowed(project: Project, table: Table, upstream: Upstream, offered: Settled, inputs: Inputs) -> None:
    low, high = window_of(project, table, upstream, len(inputs.complete))
    usable = offered.usable
    if joins(project, table, upstream):
        ready = offered.ready
        usable = usable | ready
        inputs.together |= range_any(ready, low, high)
    inputs.complete &= range_all(usable, low, high)
    inputs.busy |= range_any(offered.busy, low, high)
    np.maximum(inputs.newest, range_max(offered.state.landed_id, low, high), out=inputs.newest)


def window_of(project: Project, table: Table, upstream: Upstream, count: int) -> tuple[Ints, Ints]:
    """Return what the first `count` partitions of a partitioned reader read of a partitioned upstream."""
    node = project.node(upstream.key)
    assert node.partitioning is not None
    assert table.partitioning is not None
    reader, read = Grid.of(table.partitioning), Grid.of(node.partitioning)
    return overlap(reader, read, upstream.lookback, count, itself=upstream.key == table.key)


def _count(flags: Bools, low: Ints, high: Ints) -> Ints:
    sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(flags, dtype=np.int64)])
    top = len(flags)
    result: Ints = sums[np.minimum(high, top)] - sums[np.minimum(low, top)]
    return result


def _same_grid(node: Table | Source, table: Table) -> bool:
    if node.partitioning is None or table.partitioning is None:
        return node.partitioning is None and table.partitioning is None
    return Grid.of(node.partitioning) is Grid.of(table.partitioning)
