"""The planner: `plan(project, state, now)` decides what to build; docs/planning.md is its rule book.

Pure and vectorised: a table is a handful of arrays over its partitions, an edge is a few
prefix sums. Nothing loops over partitions in Python except self-dependent tables, which are built in
order, and those only from the first partition that is not up to date to the first that is being built.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from t2.planning.grid import Grid, Ints
from t2.planning.in_order import in_order
from t2.planning.inputs import Bools, Inputs, Settled, inputs_of, range_max, window_of
from t2.planning.requests import chunks, request
from t2.planning.state import UNKNOWN_CODE, Active, State, TableState
from t2.planning.verdict import (
    BLOCKED,
    FAILED,
    HELD,
    LANDED,
    MANUAL,
    QUEUED,
    READY,
    RETRYING,
    RUNNING,
    WAITING,
    Outcome,
    Request,
)
from t2.project.model import Project, Source, Table

MAX_REQUESTS = 100

# By outcome: whether a partition with it is being built, or will be without anybody's help.
BUSY: Bools = np.isin(np.arange(len(Outcome)), (RUNNING, QUEUED, RETRYING, HELD, READY))


@dataclass
class Plan:
    """What one tick decided.

    `outcomes`: for each table one `Outcome` a partition whose window is over. `stale`: landed or materialized
    before, but an input or the code changed since. `next_change`: when the plan can change without a new
    event (epoch seconds: a window ends, a retry falls due).
    """

    project: Project
    state: State
    now: datetime
    outcomes: dict[str, NDArray[np.int8]]
    stale: dict[str, Bools]
    requests: tuple[Request, ...]
    next_change: float
    settled: dict[str, Settled] = field(repr=False, default_factory=dict)


def plan(project: Project, state: State, now: datetime, *, max_requests: int = MAX_REQUESTS) -> Plan:
    """Decide what to build at `now` (aware); pure, so that asking again gives the same answer."""
    tick = _Tick(project, state, now)
    for source in project.sources.values():
        tick.source(source)
    for table in project.tables.values():
        tick.table(table)
    return tick.finish(max_requests)


class _Tick:
    """The arrays of one tick while they are being worked out, table by table in dependency order."""

    def __init__(self, project: Project, state: State, now: datetime) -> None:
        self.project = project
        self.state = state
        self.now = now
        self.epoch = now.timestamp()
        self.settled: dict[str, Settled] = {}
        self.outcomes: dict[str, NDArray[np.int8]] = {}
        self.stale: dict[str, Bools] = {}
        self.newest: dict[str, Ints] = {}
        self.next_change = np.inf

    def source(self, source: Source) -> None:
        """Take a source as it is: T2 does not build it."""
        past = self.state.tables[source.key]
        none = np.zeros(past.count, np.bool_)
        self.settled[source.key] = Settled(past, past.landed, busy=none, stuck=none, ready=none)
        self._window_ends(source)

    def table(self, table: Table) -> None:
        """Find the outcome of every partition of a table, as if there were room for all that is ready."""
        past = self.state.tables[table.key]
        inputs = inputs_of(self.project, table, past.count, self.settled)
        if table.reads_itself:
            self._read_itself(table, past, inputs)
        landed = past.landed
        changed = self._changed(table, past, inputs)
        outcome = self._rules(table, past, inputs, landed, changed)
        if table.reads_itself and table.automation == "eager":
            in_order(table, past, inputs, outcome, changed)
        self._settle(table, inputs, outcome, landed, changed)
        self._window_ends(table)

    def finish(self, max_requests: int) -> Plan:
        """Cut what is ready into runs; what finds no room is held."""
        ready = {key: offered.ready for key, offered in self.settled.items() if offered.ready.any()}
        taken = chunks(self.project, self.state, ready, max_requests)
        for key, wanted in ready.items():
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
            next_change=self.next_change,
            settled=self.settled,
        )

    def _read_itself(self, table: Table, past: TableState, inputs: Inputs) -> None:
        """Add the earlier partitions that each partition of a self-dependent table reads."""
        for upstream in table.upstreams:
            if upstream.key == table.key:
                low, high = window_of(self.project, table, upstream, past.count)
                np.maximum(inputs.newest, range_max(past.landed_id, low, high), out=inputs.newest)

    def _changed(self, table: Table, past: TableState, inputs: Inputs) -> Bools:
        changed: Bools = inputs.newest > past.as_of
        if table.is_view:
            changed[:] = False
        if table.follows_code or past.blocked.any():
            current = self.state.code_id(table.code_version)
            other = (past.code != current) | (current == UNKNOWN_CODE)
            changed |= other if table.follows_code else other & past.blocked & (past.code != UNKNOWN_CODE)
        changed &= past.landed_id > 0
        return changed

    def _rules(
        self, table: Table, past: TableState, inputs: Inputs, landed: Bools, changed: Bools
    ) -> NDArray[np.int8]:
        """Apply the rules for the outcome, the last one first, so that the first one that fits stays."""
        fresh = landed & ~changed
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
        if table.automation == "manual":
            outcome[:] = MANUAL
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
        self.next_change = min(self.next_change, float(retry_at[retrying].min(initial=np.inf)))

    def _settle(
        self, table: Table, inputs: Inputs, outcome: NDArray[np.int8], landed: Bools, changed: Bools
    ) -> None:
        """Keep what a table's readers have to know of it."""
        ready = outcome == READY
        busy = BUSY[outcome]
        stuck = np.zeros(len(outcome), np.bool_)
        if table.automation == "eager" and not table.is_view:
            busy |= inputs.busy
            stuck |= changed & (outcome == WAITING)
            stuck |= inputs.stuck & (outcome == LANDED)
            stuck &= landed & ~busy
        self.settled[table.key] = Settled(
            self.state.tables[table.key], landed & ~busy & ~stuck, busy, stuck, ready
        )
        self.outcomes[table.key] = outcome
        self.stale[table.key] = changed
        self.newest[table.key] = inputs.newest

    def _window_ends(self, node: Table | Source) -> None:
        if node.partitioning is not None:
            grid, count = Grid.of(node.partitioning), self.state.tables[node.key].count
            if grid.total is None or count < grid.total:
                self.next_change = min(self.next_change, float(grid.boundaries(count + 1)[count + 1]))
