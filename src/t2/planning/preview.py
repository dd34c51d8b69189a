"""What a backfill would do: how many partitions and runs of which tables, and what follows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from t2.planning.backfills import Backlog
from t2.planning.choosing import Chosen, ranges
from t2.planning.grid import Bools, Ints
from t2.planning.inputs import Settled, follows, inputs_of, joins, window_of
from t2.planning.planner import Plan, plan
from t2.planning.requests import cut
from t2.planning.state import State, Wanted
from t2.planning.verdict import WAITING
from t2.project.model import Project, Table

NO_LIMIT = 10**9


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


def preview(now: Plan, chosen: Chosen, *, named: bool) -> Preview:
    """Work out what a backfill of the chosen partitions does; `named`: one by one, not by a rule or range.

    Left out is what the planner builds anyway (the newest partition, where it has not landed yet, unless it
    was named), what a running backfill still has to build, and what waits for something that nobody builds.
    """
    project, state = now.project, now.state
    left: dict[str, dict[str, int]] = {}
    taken: Chosen = {}
    for key, flags in chosen.items():
        current, theirs = _current(now, key) & (not named), _asked_already(state, key)
        left[key] = {
            "is current: the planner builds it": int((flags & current).sum()),
            "in a backfill that runs": int((flags & theirs & ~current).sum()),
        }
        taken[key] = flags & ~current & ~theirs
    tentative = plan(project, with_wanted(state, taken), now.now, max_requests=0)
    possible = _possible(tentative, taken)
    for key, flags in taken.items():
        waits = (tentative.outcomes[key] == WAITING) & ~tentative.settled[key].busy
        taken[key] = flags & possible[key] & ~waits
        left[key]["waits for what nobody builds"] = int((flags & ~taken[key]).sum())
    runs, by_table = count_runs(project, taken)
    parts = tuple(
        Part(key, ranges(taken[key]), by_table.get(key, 0), {why: n for why, n in left[key].items() if n})
        for key in project.tables
        if key in taken
    )
    return Preview(parts, runs, tuple(_followers(project, taken)))


def _current(now: Plan, key: str) -> Bools:
    """Return where the newest partition is that the planner builds by itself and that has not landed yet."""
    past, table = now.state.tables[key], now.project.tables[key]
    found = np.zeros(past.count, np.bool_)
    if table.partitioning is not None and table.by_itself:
        found[-1:] = past.landed_id[-1:] == 0
    return found


def _asked_already(state: State, key: str) -> Bools:
    """Return what a running backfill still has to build and has not begun to."""
    past, wanted = state.tables[key], state.wanted.get(key)
    if wanted is None:
        return np.zeros(past.count, np.bool_)
    owed: Bools = (wanted.backfill > 0) & (wanted.since > past.as_of) & (past.active == 0)
    return owed


def _possible(tentative: Plan, taken: Chosen) -> Chosen:
    """Return what of each table can be there in the end: all but what waits for what nobody builds."""
    project = tentative.project
    offered: dict[str, Settled] = {}
    possible: Chosen = {}
    for node in project.nodes():
        seen = tentative.settled[node.key]
        usable = seen.usable | seen.busy
        if isinstance(node, Table) and node.key in taken:
            flags = taken[node.key]
            complete = inputs_of(project, node, len(flags), offered, tentative.now).complete
            usable = np.where(flags, complete, usable)
            if node.reads_itself:
                _behind_itself(tentative, node, usable, flags)
        none = np.zeros(len(usable), np.bool_)
        past = seen.state
        landed = np.where(usable, np.maximum(past.landed_id, 1), past.landed_id)
        past = replace(past, landed_id=landed, blocked=past.blocked & ~usable)
        offered[node.key] = Settled(past, usable, busy=none, stuck=none, ready=none)
        possible[node.key] = usable
    return possible


def _behind_itself(tentative: Plan, table: Table, usable: Bools, flags: Bools) -> None:
    """Clear what reads an earlier partition of its own table that will not be there."""
    past = tentative.state.tables[table.key]
    for upstream in table.upstreams:
        if upstream.key == table.key:
            low, high = window_of(tentative.project, table, upstream, past, len(usable))
            for index in np.flatnonzero(flags).tolist():
                usable[index] &= usable[low[index] : high[index]].all()


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
        if table.key in reached or table.is_view or not table.by_itself:
            continue
        if any(up.key in reached and follows(project, table, up) for up in table.upstreams):
            reached.add(table.key)
            yield table.key
