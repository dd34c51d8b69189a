"""The planner: `plan(project, state, now)` decides what to build; docs/planning.md is its rule book.

Pure and vectorised: a table is a handful of arrays over its partitions, an edge is a few
prefix sums. Nothing loops over partitions in Python except self-dependent tables, which are built in
order, and those only from the first partition that is not up to date to the first that is being built.
A table of which nothing changed that its part is worked out from keeps its part of the last plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from operator import is_

import numpy as np
from numpy.typing import NDArray

from t2.planning.backfills import Backlog, Part
from t2.planning.gates import Gates
from t2.planning.grid import Bools, Grid, Ints
from t2.planning.in_order import in_order
from t2.planning.inputs import (
    Inputs,
    Settled,
    built_early,
    changes,
    first_affected,
    inputs_of,
    patience_end,
    range_max,
    window_of,
)
from t2.planning.requests import chunks, request
from t2.planning.schedule import allowed, next_tick, ticked
from t2.planning.state import UNKNOWN_CODE, Active, State, TableState, Wanted
from t2.planning.verdict import (
    BLOCKED,
    BUSY,
    FAILED,
    HELD,
    LANDED,
    MANUAL,
    PAUSED,
    QUEUED,
    READY,
    RETRYING,
    RUNNING,
    SCHEDULED,
    WAITING,
    Request,
)
from t2.project.model import Cron, Project, Source, Table

MAX_REQUESTS = 100


@dataclass(frozen=True)
class Kept:
    """One node's part of a plan: the same for as long as it is worked out from the same objects.

    `seen`: those objects. `code`: the id of the table's code version. `due`: when time alone changes the part
    (epoch seconds), `turn`: when it changes more than the next partition, which is then over. `outcome`,
    `changed` and `newest` are None for a source, and nobody may write to them.
    """

    seen: tuple[object, ...]
    code: int
    due: float
    turn: float
    offered: Settled
    outcome: NDArray[np.int8] | None = None
    changed: Bools | None = None
    newest: Ints | None = None

    def holds(self, seen: tuple[object, ...], code: int, epoch: float) -> bool:
        """Whether the part would be worked out the same at an instant."""
        same = len(seen) == len(self.seen) and all(map(is_, seen, self.seen))
        return same and code == self.code and epoch < self.due


@dataclass
class Plan:
    """What one tick decided.

    `outcomes`: for each table one `Outcome` a partition whose window is over. `stale`: landed or materialized
    before, but an input or the code changed since. `next_change`: when the plan can change without a new
    event (epoch seconds: a window ends, a retry falls due). `settled`: what the partitions that a backfill
    wants see of each node, `outside` what all others see.
    """

    project: Project
    state: State
    now: datetime
    outcomes: dict[str, NDArray[np.int8]]
    stale: dict[str, Bools]
    requests: tuple[Request, ...]
    next_change: float
    settled: dict[str, Settled] = field(repr=False, default_factory=dict)
    outside: dict[str, Settled] = field(repr=False, default_factory=dict)
    gates: Gates = field(repr=False, kw_only=True)
    kept: dict[str, Kept] = field(repr=False, default_factory=dict)

    def seen(self, key: str, index: int) -> dict[str, Settled]:
        """Return what a table's partition sees of all nodes."""
        wanted = self.state.wanted.get(key)
        inside = wanted is not None and index < len(wanted.backfill) and wanted.backfill[index] > 0
        return self.settled if inside else self.outside


def plan(
    project: Project,
    state: State,
    now: datetime,
    *,
    max_requests: int = MAX_REQUESTS,
    last: Plan | None = None,
) -> Plan:
    """Decide what to build at `now` (aware); pure, so that asking again gives the same answer.

    `last`, an earlier plan of any state, makes it faster where the states hold the same objects.
    """
    tick = _Tick(project, state, now, last.kept if last is not None and last.project is project else {})
    for source in project.sources.values():
        tick.source(source)
    for table in project.tables.values():
        tick.table(table)
    return tick.finish(max_requests)


class _Tick:
    """The arrays of one tick while they are being worked out, table by table in dependency order."""

    def __init__(self, project: Project, state: State, now: datetime, before: Mapping[str, Kept]) -> None:
        self.project = project
        self.state = state
        self.now = now
        self.epoch = now.timestamp()
        self.settled: dict[str, Settled] = {}
        self.outside: dict[str, Settled] = {}
        self.backlogs: dict[str, Backlog] = {}
        self.outcomes: dict[str, NDArray[np.int8]] = {}
        self.stale: dict[str, Bools] = {}
        self.newest: dict[str, Ints] = {}
        self.gates = Gates(project)
        self.before = before
        self.kept: dict[str, Kept] = {}
        self.due: dict[str, float] = {}  # when time alone changes a part
        self.turn: dict[str, float] = {}  # when it changes more than the next partition
        self.differs: dict[str, int] = {}  # from which partition on something is not as in the last plan

    def source(self, source: Source) -> None:
        """Take a source as it is: T2 does not build it."""
        past = self.state.tables[source.key]
        none = np.zeros(past.count, np.bool_)
        kept = self.before.get(source.key)
        if kept is None or not kept.holds((past,), UNKNOWN_CODE, self.epoch):
            settled = Settled(past, past.landed, busy=none, stuck=none, ready=none)
            self.differs[source.key] = settled.differs_from(kept.offered) if kept else 0
            kept = Kept((past,), UNKNOWN_CODE, self._window_end(source), np.inf, settled)
        self.kept[source.key] = kept
        self.settled[source.key] = self.outside[source.key] = kept.offered
        self.due[source.key] = kept.due
        self.gates.pass_on(source, past, none, none)

    def table(self, table: Table) -> None:
        """Find the outcome of every partition of a table, as if there were room for all that is ready."""
        past = self.state.tables[table.key]
        wanted = self.state.wanted.get(table.key)
        self.turn[table.key] = np.inf
        if wanted is not None:
            self._backfilled(table, past, wanted)
            self.due[table.key] = min(self.turn[table.key], self._window_end(table))
            return
        seen, code = self._sees(table, past), self.state.code_id(table.code_version)
        kept = self.before.get(table.key)
        if seen is not None and kept is not None and kept.holds(seen, code, self.epoch):
            self._take_over(table, kept)
            return
        start = self._first_affected(table, past, kept, seen, code) if kept and seen else 0
        if kept and start:
            self._work_out_rest(table, past, kept, start)
        else:
            self._work_out(table, past, kept)
        self.due[table.key] = min(self.turn[table.key], self._window_end(table))
        if seen is not None:
            self.kept[table.key] = Kept(
                seen,
                code,
                self.due[table.key],
                self.turn[table.key],
                self.settled[table.key],
                self.outcomes[table.key],
                self.stale[table.key],
                self.newest[table.key],
            )

    def _sees(self, table: Table, past: TableState) -> tuple[object, ...] | None:
        """Return all that a table's part is worked out from, None if a failed check may bar named tables."""
        keys = self._read_by(table)
        if past.barred or any(self.gates.bars(key) for key in keys):
            return None
        return (past, self.state.paused.get(table.key), *(self.outside[key] for key in keys))

    @staticmethod
    def _read_by(table: Table) -> list[str]:
        keys = [upstream.key for upstream in table.upstreams if upstream.key != table.key]
        return [*keys, *table.compares_with]

    def _take_over(self, table: Table, kept: Kept) -> None:
        self.kept[table.key] = kept
        assert kept.outcome is not None
        assert kept.changed is not None
        assert kept.newest is not None
        self.outcomes[table.key] = kept.outcome
        self.stale[table.key] = kept.changed
        self.newest[table.key] = kept.newest
        self.settled[table.key] = self.outside[table.key] = kept.offered
        self.due[table.key] = kept.due

    def _first_affected(
        self, table: Table, past: TableState, kept: Kept, seen: tuple[object, ...], code: int
    ) -> int:
        """Return the first partition that may not be as in the last plan; 0 where that is not known."""
        plain = table.automation in ("eager", "manual") and not table.reads_itself
        if not plain or table.partitioning is None or table.partitioning.open:
            return 0
        same = len(seen) == len(kept.seen) and code == kept.code and self.epoch < kept.turn
        if not same or seen[1] is not None or kept.seen[1] is not None:
            return 0
        before = kept.offered.state
        start = past.count if past is before else past.differs_from(before)
        changed = {
            key
            for key, new, old in zip(self._read_by(table), seen[2:], kept.seen[2:], strict=True)
            if new is not old
        }
        if changed.intersection(table.compares_with):
            return 0
        for upstream in table.upstreams:
            if not upstream.required:
                return 0
            if upstream.key in changed and start:
                since = self.differs.get(upstream.key, 0)
                start = min(start, first_affected(self.project, table, upstream, since, past.count))
        return min(start, before.count)

    def _work_out_rest(self, table: Table, past: TableState, kept: Kept, start: int) -> None:
        """Work out the partitions from a number on, and take over the others."""
        assert kept.outcome is not None
        assert kept.changed is not None
        assert kept.newest is not None
        self._wake(table, kept.turn)
        rest = past.rest(start)
        inputs = inputs_of(self.project, table, past.count, self.outside, self.now, start)
        changed = self._changed(table, rest, inputs)
        acts = np.full(rest.count, table.automation == "eager")
        outcome = self._rules(table, rest, inputs, changed, acts)
        settled = self._settled(table, rest, inputs, outcome, changed, acts).after(kept.offered, start, past)
        self.outcomes[table.key] = np.concatenate([kept.outcome[:start], outcome])
        self.stale[table.key] = np.concatenate([kept.changed[:start], changed])
        self.newest[table.key] = np.concatenate([kept.newest[:start], inputs.newest])
        self._offer(table, settled, kept, start)

    def _offer(self, table: Table, settled: Settled, kept: Kept | None, start: int = 0) -> None:
        """Let readers see a table; those of which it is the same as in the last plan can keep their parts."""
        if kept is not None:
            since = settled.differs_from(kept.offered, start)
            same = since == len(settled.usable) == len(kept.offered.usable)
            if same and settled.state is kept.offered.state:
                settled = kept.offered
            else:
                self.differs[table.key] = since
        self.settled[table.key] = self.outside[table.key] = settled

    def _work_out(self, table: Table, past: TableState, kept: Kept | None) -> None:
        inputs = self._inputs(table, past, self.outside, past.landed_id)
        changed = self._changed(table, past, inputs)
        acts = self._allowed(table, past)
        outcome = self._rules(table, past, inputs, changed, acts)
        if table.reads_itself and acts.any():
            inputs.busy &= acts
            inputs.stuck &= acts
            in_order(table, past, inputs, outcome, changed)
        settled = self._settle(table, inputs, outcome, changed, acts)
        self._offer(table, settled, kept)
        self.gates.pass_on(table, past, settled.ready, settled.ready & (not table.reads_itself))

    def _backfilled(self, table: Table, past: TableState, wanted: Wanted) -> None:
        """Do the same for a table of which backfills want something."""
        old = Part.old_ids(past, (wanted.backfill > 0) & past.landed)
        outside = self._inputs(table, past, self.outside, old)
        inside = self._inputs(table, past, self.settled, past.landed_id)
        changed = self._changed(table, past, outside)
        allowed = self._allowed(table, past)
        part = Part(table, past, wanted, outside, changed, allowed)
        if table.reads_itself:
            outside = self._inputs(table, past, self.outside, part.old_ids(past, part.aside))
            changed = self._changed(table, past, outside)
        inputs = part.merged(inside, outside)
        changed = np.where(part.wanted, self._changed(table, past, inputs), changed)
        changed |= part.owed & (past.landed_id > 0)
        acts = allowed | (part.owed & (not self._is_paused(table)))
        outcome = self._rules(table, past, inputs, changed, acts)
        busy = inputs.busy.copy()
        if table.reads_itself and acts.any():
            inputs.busy &= acts
            inputs.stuck &= acts
            part.in_order(past, inputs, outcome, changed)
        settled = self._settle(table, inputs, outcome, changed, acts)
        self.settled[table.key] = part.from_inside(settled, outcome)
        self.outside[table.key] = part.from_outside(settled)
        self.backlogs[table.key] = part.backlog(outcome, busy)
        anew = self.outside[table.key].ready & (not table.reads_itself)
        self.gates.pass_on(table, past, settled.ready, anew)

    def finish(self, max_requests: int) -> Plan:
        """Cut what is ready into runs; what finds no room is held."""
        ready = {key: offered.ready for key, offered in self.settled.items() if offered.ready.any()}
        taken = chunks(self.project, self.state, ready, max_requests, self.backlogs)
        for key, wanted in ready.items():
            self.outcomes[key] = self.outcomes[key].copy()  # what is kept stays as it was worked out
            up_to_date = self.state.tables[key].landed & ~self.stale[key]
            self.outcomes[key][wanted] = np.where(up_to_date, LANDED, HELD)[wanted]
        for chunk in taken:
            for key in chunk.tables:
                self.outcomes[key][chunk.first : chunk.last + 1] = READY
        return Plan(
            project=self.project,
            state=self.state,
            now=self.now,
            outcomes=self.outcomes,
            stale=self.stale,
            requests=tuple(request(self.project, self.state, chunk, self.newest) for chunk in taken),
            next_change=min(self.due.values(), default=np.inf),
            settled=self.settled,
            outside=self.outside,
            gates=self.gates,
            kept=self.kept,
        )

    def _inputs(self, table: Table, past: TableState, offered: dict[str, Settled], own_ids: Ints) -> Inputs:
        """Evaluate all inputs; a self-dependent table's own earlier partitions landed with `own_ids`."""
        inputs = inputs_of(self.project, table, past.count, offered, self.now)
        inputs.complete &= ~self.gates.closed(table, past)
        for upstream in table.upstreams:
            if upstream.key == table.key:
                low, high = window_of(self.project, table, upstream, past, past.count)
                ids = changes(table, table, own_ids, past.landed_at)
                np.maximum(inputs.newest, range_max(ids, low, high), out=inputs.newest)
        self._wake(table, patience_end(table, past.count, self.now))
        return inputs

    def _changed(self, table: Table, past: TableState, inputs: Inputs) -> Bools:
        changed: Bools = inputs.newest > past.as_of
        if ticked(table, past, self.now):
            changed[:] = True
        if table.partitioning is not None and table.partitioning.open:
            changed |= built_early(table.partitioning, past, self.now)
        if table.is_view:
            changed[:] = False
        shut = past.shut
        if table.follows_code or shut.any():
            current = self.state.code_id(table.code_version)
            other = (past.code != current) | (current == UNKNOWN_CODE)
            changed |= other if table.follows_code else other & shut & (past.code != UNKNOWN_CODE)
        changed &= past.landed_id > 0
        return changed

    def _rules(
        self, table: Table, past: TableState, inputs: Inputs, changed: Bools, acts: Bools
    ) -> NDArray[np.int8]:
        """Apply the rules for the outcome, the last one first, so that the first one that fits stays.

        `acts`: what is built when it is ready, because of the policy or a backfill.
        """
        fresh = past.landed & ~changed
        together, active = inputs.together.any(), past.active.any()
        if fresh.all() and not together and not active:
            return np.full(past.count, LANDED, np.int8)
        outcome = np.full(past.count, READY, np.int8)
        if past.failed_id.any():
            self._failures(table, past, inputs, outcome)
        if past.blocked.any():
            # A failed attempt since (a person's, or a run that died before its checks) makes it a failure.
            dirty = past.blocked & (past.landed_id > 0) & (past.failed_id == 0)
            np.putmask(outcome, dirty & ~changed & ~inputs.together, BLOCKED)
        np.putmask(outcome, ~inputs.complete, WAITING)
        if not acts.all():
            np.putmask(outcome, ~acts, self._at_rest(table))
        # An input that comes in the same run makes a landed partition stale only if it can join that run.
        joining = inputs.together & (outcome == READY)
        np.putmask(outcome, fresh & ~joining, LANDED)
        if active:
            np.putmask(outcome, past.active == Active.QUEUED, QUEUED)
            np.putmask(outcome, past.active == Active.RUNNING, RUNNING)
        return outcome

    def _failures(self, table: Table, past: TableState, inputs: Inputs, outcome: NDArray[np.int8]) -> None:
        """Mark partitions whose newest attempt failed with nothing new since."""
        current = self.state.code_id(table.code_version)
        failed = (
            (past.failed_id > 0)
            & ((past.failed_code == UNKNOWN_CODE) | (past.failed_code == current))
            & (inputs.newest <= past.failed_as_of)
            & ~inputs.together
        )
        exponent = np.clip(past.failures - 1, 0, 20)
        retry_at = past.failed_at + table.retries.wait_seconds * np.exp2(exponent)
        used_up = past.canceled | (past.failures > table.retries.attempts)
        retrying = failed & ~used_up & (retry_at > self.epoch)
        np.putmask(outcome, failed & used_up, FAILED)
        np.putmask(outcome, retrying, RETRYING)
        self._wake(table, float(retry_at[retrying].min(initial=np.inf)))

    def _settle(
        self, table: Table, inputs: Inputs, outcome: NDArray[np.int8], changed: Bools, acts: Bools
    ) -> Settled:
        """Keep what was worked out, and return what readers have to know of it."""
        self.outcomes[table.key] = outcome
        self.stale[table.key] = changed
        self.newest[table.key] = inputs.newest
        return self._settled(table, self.state.tables[table.key], inputs, outcome, changed, acts)

    @staticmethod
    def _settled(
        table: Table,
        past: TableState,
        inputs: Inputs,
        outcome: NDArray[np.int8],
        changed: Bools,
        acts: Bools,
    ) -> Settled:
        """Return what a table's readers have to know of it; `acts`: it is built when it is ready."""
        acts = acts & (not table.is_view)
        busy = BUSY[outcome] | (inputs.busy & acts)
        stuck = (changed & (outcome == WAITING)) | (inputs.stuck & (outcome == LANDED))
        stuck &= acts & past.landed & ~busy
        return Settled(past, past.landed & ~busy & ~stuck, busy, stuck, outcome == READY)

    def _allowed(self, table: Table, past: TableState) -> Bools:
        """Return what the policy lets be built; nothing of a table that is paused."""
        if self._is_paused(table):
            return np.zeros(past.count, np.bool_)
        if isinstance(table.automation, Cron):
            self._wake(table, next_tick(table.automation, self.now))
        return allowed(table, past, self.now)

    def _is_paused(self, table: Table) -> bool:
        pause = self.state.paused.get(table.key)
        if pause is None or pause.until <= self.epoch:
            return False
        self._wake(table, pause.until)
        return True

    def _at_rest(self, table: Table) -> np.int8:
        """Return the outcome of what is not built although it may be ready."""
        if self._is_paused(table):
            return PAUSED
        return SCHEDULED if isinstance(table.automation, Cron) else MANUAL

    def _wake(self, table: Table, instant: float) -> None:
        """Plan again at an instant, in epoch seconds."""
        self.turn[table.key] = min(self.turn[table.key], instant)

    def _window_end(self, node: Table | Source) -> float:
        """Return when the next partition of a node is over, in epoch seconds."""
        if node.partitioning is None:
            return np.inf
        grid, count = Grid.of(node.partitioning), self.state.tables[node.key].count
        end = float(grid.boundaries(count)[count])
        return end if grid.open and end > self.epoch else grid.next_change(count)
