"""Self-dependent tables: each partition reads earlier ones, so they are built in order, one run at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from t2.planning.grid import Bools, Ints
from t2.planning.inputs import Inputs
from t2.planning.state import TableState
from t2.planning.verdict import BLOCKED, FAILED, HELD, LANDED, READY, RETRYING, WAITING
from t2.project.model import Table

# The outcomes that a partition can only have when all that it reads is there.
NEEDS_INPUTS = (BLOCKED, FAILED, RETRYING, READY)


def in_order(
    table: Table,
    past: TableState,
    inputs: Inputs,
    outcome: NDArray[np.int8],
    changed: Bools,
    backfill: Ints | None = None,
) -> None:
    """Let each partition wait for the earlier ones that it reads; `outcome` comes without that rule.

    `backfill`: the one that a partition is built for alone, 0 for none; a run is of one.
    Marks in `inputs` what is busy or stuck because an earlier partition is. Partitions are
    looked at one by one from the first that is not up to date to the first that is busy: whatever
    follows that one waits, because each reads the one before.
    """
    odd = ~past.landed | (outcome != LANDED) | inputs.busy | inputs.stuck
    if not odd.any():
        return
    lookback = max(upstream.lookback for upstream in table.upstreams if upstream.key == table.key)
    usable = np.ones(past.count, np.bool_)
    stuck = np.zeros(past.count, np.bool_)
    for index in range(int(np.argmax(odd)), past.count):
        read = slice(max(index - lookback, 0), index)
        if outcome[index] in NEEDS_INPUTS and not usable[read].all():
            outcome[index] = WAITING
        built = outcome[index] in (RETRYING, READY) or past.active[index]
        if built or inputs.busy[index]:
            _start(table, past, inputs, outcome, index, backfill)
            return
        inputs.stuck[index] |= stuck[read].any()
        waits = changed[index] and outcome[index] == WAITING
        stays = inputs.stuck[index] and outcome[index] == LANDED
        stuck[index] = past.landed[index] and (waits or stays)
        usable[index] = past.landed[index] and not stuck[index]


def _start(
    table: Table,
    past: TableState,
    inputs: Inputs,
    outcome: NDArray[np.int8],
    first: int,
    backfill: Ints | None,
) -> None:
    """Let one run begin at `first` if that is ready, and all that follows wait."""
    end = first + 1
    if outcome[first] == READY and past.active_runs:
        outcome[first] = HELD
    elif outcome[first] == READY:
        span = slice(first, first + table.backfill.partitions_per_run)
        possible = inputs.complete[span]
        if backfill is not None:
            possible = possible & (backfill[span] == backfill[first])
        end = first + (len(possible) if possible.all() else int(np.argmin(possible)))
        outcome[first:end] = READY
    rest = outcome[end:]
    rest[np.isin(rest, NEEDS_INPUTS)] = WAITING
    inputs.busy[first:] = True
