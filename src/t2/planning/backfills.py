"""Backfills in the planner: what they want of a table, and how everything else sees that table meanwhile.

Those inside a backfill (the partitions that it wants) wait for each other as after any change. Those outside
go on as if it did not run: what it wants counts as landed for them, with its old data or its new, and as
changed only when the backfill is over. So current partitions keep landing, and what reads the table is built
once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from t2.planning.grid import Bools, Ints
from t2.planning.in_order import NEEDS_INPUTS, in_order
from t2.planning.inputs import Inputs, Settled, range_any
from t2.planning.state import Active, TableState, Wanted
from t2.planning.verdict import BUSY, FAILED, HELD, LANDED, PAUSED, READY, RETRYING, WAITING
from t2.project.model import Table


@dataclass(frozen=True)
class Backlog:
    """What backfills alone want built of a table, by partition: behind everything else, in full runs.

    `backfill`: the id of the backfill, 0 where there is none or the partition is built for other reasons too.
    `coming`: it waits for what is being built, so that its run waits for it.
    """

    backfill: Ints
    coming: Bools


class Part:
    """A table's part in running backfills; arrays over its partitions.

    `allowed`: the table's policy lets it be built.
    `wanted`: some backfill wants it. `owed`: and it was not built since. `aside`: those outside take it for
    landed, because but for the backfill it would be up to date. `stuck`: it would be, were it not behind a
    partition of its own table that is stuck.
    """

    def __init__(
        self,
        table: Table,
        past: TableState,
        wanted: Wanted,
        outside: Inputs,
        changed: Bools,
        allowed: Bools,
    ) -> None:
        self.table = table
        self.allowed = allowed
        self.since = wanted.since
        self.wanted: Bools = wanted.backfill > 0
        self.owed: Bools = self.wanted & (wanted.since > past.as_of)
        stale = (changed | outside.busy | outside.stuck) & allowed
        self.aside: Bools = self.wanted & past.landed & ~stale
        self.stuck: Bools = np.zeros(past.count, np.bool_)
        self.backfill: Ints = np.where(self.owed & ~(changed & allowed), wanted.backfill, 0)

    def merged(self, inside: Inputs, outside: Inputs) -> Inputs:
        """Return the inputs of each partition: seen from inside where it is wanted, else from outside."""
        np.maximum(inside.newest, self.since, out=inside.newest)
        chosen = {
            field.name: np.where(self.wanted, getattr(inside, field.name), getattr(outside, field.name))
            for field in fields(Inputs)
        }
        return Inputs(**chosen)

    def in_order(self, past: TableState, inputs: Inputs, outcome: NDArray[np.int8], changed: Bools) -> None:
        """Put a self-dependent table in order, inside and outside of backfills; one run of both at a time."""
        by_itself = bool(self.allowed.any())
        alone = outcome.copy()
        if by_itself:
            self._outside_in_order(past, inputs, outcome, changed)
        own = _copy(inputs, complete=inputs.complete & self.wanted)
        if not by_itself:
            own.busy &= self.owed
            own.stuck &= self.owed
        decided = outcome.copy()
        # What failed keeps its old data, and what the backfill builds after it waits.
        seen = replace(past, blocked=past.blocked | (self.owed & (outcome == FAILED)))
        if not by_itself:  # nothing follows what a person builds, but what reads it waits
            by_hand = ~self.wanted & (past.active > 0)
            lookback = max(up.lookback for up in self.table.upstreams if up.key == self.table.key)
            index = np.arange(past.count)
            own.busy |= self.owed & range_any(by_hand, np.maximum(index - lookback, 0), index)
            seen.blocked |= by_hand
            seen.active = np.where(self.wanted, past.active, Active.NO).astype(np.int8)
        in_order(self.table, seen, own, decided, changed, self.backfill)
        self._take(self.wanted, inputs, outcome, own, decided)
        if by_itself:
            self._wait_behind(inputs, outcome, alone)
        if (outcome[~self.wanted] == READY).any():
            outcome[self.wanted & (outcome == READY)] = HELD

    def _outside_in_order(
        self, past: TableState, inputs: Inputs, outcome: NDArray[np.int8], changed: Bools
    ) -> None:
        others = _copy(inputs, complete=inputs.complete & ~self.wanted)
        others.busy &= ~self.wanted
        others.stuck &= ~self.aside
        seen = replace(past, active=np.where(self.wanted, Active.NO, past.active).astype(np.int8))
        decided = np.where(self.aside, LANDED, outcome)
        decided[self.wanted & np.isin(decided, (READY, RETRYING))] = WAITING
        in_order(self.table, seen, others, decided, changed & ~self.aside)
        self._take(~self.wanted, inputs, outcome, others, decided)
        # Behind a partition that waits for its own reasons, those outside wait too.
        self.stuck = self.aside & others.stuck & ~others.busy
        self.aside &= ~others.busy & ~others.stuck

    def _wait_behind(self, inputs: Inputs, outcome: NDArray[np.int8], alone: NDArray[np.int8]) -> None:
        """Let those outside wait for what is about to be built for its own reasons, too.

        `alone`: the outcomes without any order.
        """
        built = self.wanted & ~self.aside & (inputs.busy | BUSY[outcome])
        if built.any():
            behind = np.arange(len(built)) > int(np.argmax(built))
            self.aside &= ~behind
            self.stuck &= ~behind
            inputs.busy |= behind & ~self.wanted
            waits = behind & ~self.wanted & np.isin(outcome, (*NEEDS_INPUTS, HELD))
            outcome[waits] = np.where(np.isin(alone, NEEDS_INPUTS), WAITING, alone)[waits]

    @staticmethod
    def _take(
        here: Bools, inputs: Inputs, outcome: NDArray[np.int8], found: Inputs, decided: NDArray[np.int8]
    ) -> None:
        outcome[here] = decided[here]
        inputs.busy[here] = found.busy[here]
        inputs.stuck[here] = found.stuck[here]

    def backlog(self, outcome: NDArray[np.int8], busy: Bools) -> Backlog:
        """Say what is built for backfills alone; `busy`: some input from another table is."""
        return Backlog(self.backfill, (self.backfill > 0) & (outcome == WAITING) & busy)

    def from_inside(self, settled: Settled, outcome: NDArray[np.int8]) -> Settled:
        """Return what the wanted partitions of readers see: they wait for what failed or is paused, too."""
        lost = self.owed & np.isin(outcome, (FAILED, PAUSED))
        return replace(settled, usable=settled.usable & ~lost)

    def from_outside(self, settled: Settled) -> Settled:
        """Return what everything else sees."""
        past = settled.state
        return Settled(
            state=replace(
                past,
                landed_id=self.old_ids(past, self.aside),
                active=np.where(self.aside, Active.NO, past.active).astype(np.int8),
            ),
            usable=(settled.usable | self.aside) & ~self.stuck,
            busy=settled.busy & ~self.aside,
            stuck=(settled.stuck & ~self.aside) | self.stuck,
            ready=settled.ready & (self.backfill == 0),
        )

    @staticmethod
    def old_ids(past: TableState, where: Bools) -> Ints:
        """Return the landed ids, so old where told that nobody takes them for a change."""
        return np.where(where, np.minimum(past.landed_id, 1), past.landed_id)


def _copy(inputs: Inputs, *, complete: Bools) -> Inputs:
    return replace(inputs, complete=complete, busy=inputs.busy.copy(), stuck=inputs.stuck.copy())
