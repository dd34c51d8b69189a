"""What a person asks to be built again: which partitions, what is downstream, and what it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from t2.planning.backfills import Backlog
from t2.planning.grid import Grid, Ints
from t2.planning.inputs import Bools, joins, range_any, window_of
from t2.planning.planner import Plan, plan
from t2.planning.requests import cut
from t2.planning.state import State, Wanted
from t2.planning.verdict import BLOCKED, FAILED, WAITING
from t2.project.model import Project, Table

Chosen = dict[str, Bools]
NO_LIMIT = 10**9


def every(plan: Plan, key: str) -> Bools:
    """Choose all partitions of a table that are due."""
    return np.ones(plan.state.tables[key].count, np.bool_)


def missing(plan: Plan, key: str) -> Bools:
    """Choose the partitions of a table that were never built."""
    found: Bools = plan.state.tables[key].landed_id == 0
    return found


def failed(plan: Plan, key: str) -> Bools:
    """Choose the partitions of a table whose newest attempt failed, or that a failed check blocks."""
    past = plan.state.tables[key]
    outcomes = plan.outcomes[key]
    found: Bools = (past.failed_id > 0) | past.blocked | (outcomes == FAILED) | (outcomes == BLOCKED)
    return found


def with_downstream(project: Project, plan: Plan, chosen: Chosen, roots: Sequence[str]) -> Chosen:
    """Add the partitions that read what is chosen of `roots`, however far down; views are looked through.

    Unpartitioned tables that build by themselves are left out: they follow when the backfill is over.
    """
    reached = set(roots)
    found = {key: flags.copy() for key, flags in chosen.items()}
    for table in project.tables.values():
        count = plan.state.tables[table.key].count
        hit = found.get(table.key, np.zeros(count, np.bool_))
        for upstream in table.upstreams:
            if upstream.key in reached and upstream.key != table.key and found[upstream.key].any():
                hit |= _readers(project, table, upstream.key, upstream.lookback, found[upstream.key], count)
        if table.is_view or not hit.any():
            continue
        if table.partitioning is None and table.automation == "eager" and table.key not in chosen:
            continue
        if any(up.key in reached for up in table.upstreams):
            if table.reads_itself:
                hit[int(np.argmax(hit)) :] = True
            reached.add(table.key)
            found[table.key] = hit
    return found


def _readers(project: Project, table: Table, key: str, lookback: int, read: Bools, count: int) -> Bools:
    node = project.node(key)
    if table.partitioning is None or node.partitioning is None:
        return np.full(count, table.partitioning is None)
    edges = [up for up in table.upstreams if up.key == key and up.lookback == lookback]
    low, high = window_of(project, table, edges[0], count)
    return range_any(read, low, high)


@dataclass(frozen=True)
class Part:
    """One table of a backfill. `ranges`: its partitions as (first, last) numbers.

    `left_out`: partitions by why the backfill does not take them.
    """

    table: str
    ranges: tuple[tuple[int, int], ...]
    runs: int
    left_out: Mapping[str, int]

    @property
    def partitions(self) -> int:
        """How many partitions are built."""
        return sum(last - first + 1 for first, last in self.ranges)


@dataclass(frozen=True)
class Preview:
    """What a backfill would do: its tables in dependency order, `runs` in all, and what follows it.

    A run that builds several tables is counted once in `runs` and once for each table. `followers`: tables
    that read what is built and are built again by themselves when the backfill is over.
    """

    parts: tuple[Part, ...]
    runs: int
    followers: tuple[str, ...]

    @property
    def partitions(self) -> int:
        """How many partitions of all tables are built."""
        return sum(part.partitions for part in self.parts)


def preview(project: Project, state: State, now: Plan, chosen: Chosen, explicit: frozenset[str]) -> Preview:
    """Work out what a backfill of the chosen partitions does; `explicit` were named partition by partition.

    Left out is what the planner builds anyway (the newest partition, where it has not landed yet), what a
    running backfill still has to build, and what waits for something that nobody builds.
    """
    left: dict[str, dict[str, int]] = {}
    taken: Chosen = {}
    for key, flags in chosen.items():
        past = state.tables[key]
        table = project.tables[key]
        newest = np.zeros(past.count, np.bool_)
        if table.partitioning is not None and table.automation == "eager" and key not in explicit:
            newest[-1:] = past.landed_id[-1:] == 0
        old = state.wanted.get(key)
        theirs = (old.backfill > 0) & (old.since > past.as_of) & (past.active == 0) if old else newest & False
        left[key] = {
            "is current: the planner builds it": int((flags & newest).sum()),
            "in a backfill that runs": int((flags & theirs & ~newest).sum()),
        }
        taken[key] = flags & ~newest & ~theirs
    tentative = plan(project, with_wanted(state, taken), now.now, max_requests=0)
    for key, flags in taken.items():
        outcome = tentative.outcomes[key]
        waits = flags & (outcome == WAITING) & ~tentative.settled[key].busy
        left[key]["waits for what nobody builds"] = int(waits.sum())
        taken[key] = flags & ~waits
    runs, by_table = count_runs(project, taken)
    parts = tuple(
        Part(key, ranges(taken[key]), by_table.get(key, 0), {why: n for why, n in left[key].items() if n})
        for key in project.tables
        if key in taken
    )
    return Preview(parts, runs, tuple(_followers(project, taken)))


def with_wanted(state: State, chosen: Chosen) -> State:
    """Return the state as if a backfill of the chosen partitions was asked for now."""
    newest = max((backfill.backfill.max(initial=0) for backfill in state.wanted.values()), default=0) + 1
    wanted = dict(state.wanted)
    for key, flags in chosen.items():
        zeros: Ints = np.zeros(len(flags), np.int64)
        old = wanted.get(key, Wanted(zeros, zeros))
        # Not above what happens next: nothing was built since now.
        since = max(int(state.tables[key].as_of.max(initial=0)), state.cursor) + 1
        wanted[key] = Wanted(np.where(flags, newest, old.backfill), np.where(flags, since, old.since))
    return replace(state, wanted=wanted)


def count_runs(project: Project, chosen: Chosen) -> tuple[int, dict[str, int]]:
    """Return how many runs build the chosen partitions, in all and of each table."""
    tables = {key: _apart(project, table, chosen) for key, table in project.tables.items()}
    backlogs = {
        key: Backlog(flags.astype(np.int64), np.zeros(len(flags), np.bool_)) for key, flags in chosen.items()
    }
    ready = {key: flags.copy() for key, flags in chosen.items() if flags.any()}
    total, by_table = 0, dict.fromkeys(chosen, 0)
    while ready:
        made = cut(replace(project, tables=tables), ready, NO_LIMIT, backlogs, dict.fromkeys(ready, NO_LIMIT))
        for chunk in made:
            total += 1
            for key in chunk.tables:
                by_table[key] += 1
                ready[key][chunk.first : chunk.last + 1] = False
        ready = {key: flags for key, flags in ready.items() if flags.any()}
    return total, by_table


def _apart(project: Project, table: Table, chosen: Chosen) -> Table:
    """Let a table have runs of its own if it also waits for something else in the backfill."""
    others = [up for up in table.upstreams if up.key in chosen and not joins(project, table, up)]
    return replace(table, isolation="table") if others and table.key in chosen else table


def _followers(project: Project, taken: Chosen) -> Iterator[str]:
    reached = {key for key, flags in taken.items() if flags.any()}
    for table in project.tables.values():
        if table.key not in reached and table.automation == "eager" and not table.is_view:
            counts = (up.key in reached for up in table.upstreams)
            if any(counts):
                reached.add(table.key)
                yield table.key


def ranges(flags: Bools) -> tuple[tuple[int, int], ...]:
    """Return the stretches that are set, as (first, last) numbers."""
    edges = np.flatnonzero(np.diff(np.pad(flags.astype(np.int8), 1))).reshape(-1, 2)
    return tuple((int(low), int(high) - 1) for low, high in edges.tolist())


def keys(project: Project, key: str, first: int, last: int) -> tuple[str, str]:
    """Return the partition keys of a range, "" for a table without partitions."""
    partitioning = project.tables[key].partitioning
    grid = Grid.of(partitioning) if partitioning else None
    return (grid.key(first), grid.key(last)) if grid else ("", "")
