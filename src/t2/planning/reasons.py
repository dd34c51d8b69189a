"""A plan read aloud: the verdict of one partition, worked out from the very arrays that decided it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from t2.planning.inputs import Settled, due, exists, follows, overdue, reads_everything, so_far, window_of
from t2.planning.planner import Plan
from t2.planning.verdict import Outcome, Reason, Verdict
from t2.project.model import Source, Table, Upstream


def verdict(plan: Plan, key: str, index: int) -> Verdict:
    """Return the outcome of a table's partition (0 when unpartitioned) with the upstreams that explain it.

    A landed partition has reasons when something it reads is about to change: readers wait for it.
    """
    table = plan.project.tables[key]
    outcome = outcome_of(plan, key, index)
    over = index < len(plan.outcomes[key])
    reasons: tuple[Reason, ...] = ()
    if outcome is Outcome.WAITING or (outcome is Outcome.LANDED and not plan.settled[key].usable[index]):
        owed = (reason for upstream in table.upstreams for reason in _missing(plan, table, upstream, index))
        reasons = (*owed, *_failed_checks(plan, key, index), *_compared(plan, table))
        if not reasons and table.reads_itself:
            reasons = tuple(_before(plan, key, index))
    return Verdict(key, index, outcome, stale=over and bool(plan.stale[key][index]), reasons=reasons)


def outcome_of(plan: Plan, key: str, index: int) -> Outcome:
    """Return the outcome of a partition of a table or source; a source waits until its data has landed."""
    node = plan.project.node(key)
    if isinstance(node, Table):
        known = plan.outcomes[key]
        return Outcome(int(known[index])) if index < len(known) else Outcome.NOT_DUE
    past = plan.state.tables[key]
    if index >= past.count:
        return Outcome.NOT_DUE
    if past.landed[index]:
        return Outcome.LANDED
    return Outcome.BLOCKED if past.landed_id[index] else Outcome.WAITING


def _missing(plan: Plan, table: Table, upstream: Upstream, index: int) -> Iterator[Reason]:
    """Yield what one upstream still owes to a partition, as runs of partitions with the same outcome."""
    if upstream.key == table.key:
        yield from _earlier(plan, table, upstream, index)
        return
    offered = plan.seen(table.key, index)[upstream.key]
    node = plan.project.node(upstream.key)
    counts = follows(plan.project, table, upstream)
    if node.partitioning is None:
        if not _serves(table, node, offered, counts=counts):
            yield Reason(upstream.key, outcome_of(plan, upstream.key, 0), 0, 0)
        return
    if table.is_view or reads_everything(table, upstream):
        owed = _owed_to_whole(table, offered, due(table, node, offered, plan.now), counts=counts)
    else:
        owed = _owed(plan, table, upstream, offered, index)
    yield from _fold(plan, upstream.key, owed)


def _owed(plan: Plan, table: Table, upstream: Upstream, offered: Settled, index: int) -> list[int]:
    """Return which partitions of a window are not there."""
    project, count = plan.project, plan.state.tables[table.key].count
    low, high = window_of(project, table, upstream, offered.state, count)
    high = so_far(table, low, high, offered.state.count, plan.now)
    there = offered.usable if follows(project, table, upstream) else offered.state.landed
    parent = offered if upstream.key in project.tables else None
    if overdue(table, upstream, parent, count, plan.now)[index]:
        there = there | (offered.state.landed_id == 0)
        high = np.minimum(high, len(there))
    return [i for i in range(int(low[index]), int(high[index])) if i >= len(there) or not there[i]]


def _failed_checks(plan: Plan, key: str, index: int) -> Iterator[Reason]:
    """Yield where checks failed that block this very table, however far up."""
    causes = plan.gates.causes(plan.state, key, index)
    for failed in dict.fromkeys(cause for cause, _ in causes):
        for first, last in _ranges([i for cause, i in causes if cause == failed]):
            yield Reason(failed, Outcome.BLOCKED, first, last, named=True)


def _ranges(indices: list[int]) -> Iterator[tuple[int, int]]:
    """Yield neighbouring numbers as (first, last)."""
    start = 0
    for end in range(1, len(indices) + 1):
        if end == len(indices) or indices[end] != indices[end - 1] + 1:
            yield indices[start], indices[end - 1]
            start = end


def _compared(plan: Plan, table: Table) -> Iterator[Reason]:
    """Yield what the table's tests read and nobody has built yet."""
    for key in table.compares_with:
        if not exists(plan.settled[key]):
            yield Reason(key, outcome_of(plan, key, 0), 0, 0)


def _serves(table: Table, node: Table | Source, offered: Settled, *, counts: bool) -> bool:
    """Whether an unpartitioned upstream is all that a reader needs; the same rules as in `inputs`."""
    exists = bool(offered.state.landed_id[0] > 0)
    if table.is_view:
        return exists
    if isinstance(node, Table) and node.is_view:
        return exists and not bool(offered.busy[0])
    return bool(offered.usable[0] if counts else offered.state.landed[0])


def _owed_to_whole(table: Table, offered: Settled, due: int, *, counts: bool) -> list[int]:
    """Which partitions hold back a reader of the whole table: those that are blocked or about to change.

    Also the newest one that was over at the reader's tick.
    """
    state = offered.state
    if table.is_view:
        return [] if (state.landed_id > 0).any() else [0]
    holds = state.blocked & (state.landed_id > 0)
    if counts:
        holds = holds | offered.busy | offered.stuck
    if due:
        holds[due - 1] |= not state.landed[due - 1]
    found: list[int] = np.flatnonzero(holds).tolist()
    return found or ([] if state.landed.any() else [0])


def _earlier(plan: Plan, table: Table, upstream: Upstream, index: int) -> Iterator[Reason]:
    usable = plan.seen(table.key, index)[table.key].usable
    owed = [i for i in range(max(index - upstream.lookback, 0), index) if not usable[i]]
    yield from _fold(plan, table.key, owed)


def _before(plan: Plan, key: str, index: int) -> Iterator[Reason]:
    """Yield the oldest partition that is being built: a self-dependent table has one run at a time."""
    busy = plan.settled[key].busy[:index]
    if busy.any():
        yield from _fold(plan, key, [int(np.argmax(busy))])


def _fold(plan: Plan, key: str, indices: list[int]) -> Iterator[Reason]:
    """Fold neighbouring partitions with the same outcome into one reason."""
    start = 0
    outcomes = [outcome_of(plan, key, index) for index in indices]
    for end in range(1, len(indices) + 1):
        new = end == len(indices) or indices[end] != indices[end - 1] + 1 or outcomes[end] != outcomes[start]
        if new:
            yield Reason(key, outcomes[start], indices[start], indices[end - 1])
            start = end
