"""Verdicts: what the planner says of one (table, partition), and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np


class Outcome(IntEnum):
    """The first rule of docs/planning.md that fits a partition."""

    RUNNING = 0
    QUEUED = 1
    NOT_DUE = 2
    LANDED = 3
    MANUAL = 4
    WAITING = 5
    BLOCKED = 6
    FAILED = 7
    RETRYING = 8
    HELD = 9
    READY = 10
    SCHEDULED = 11
    PAUSED = 12

    @property
    def label(self) -> str:
        """The outcome as users read it."""
        return self.name.lower().replace("_", " ")


# The outcomes as the planner's arrays hold them: an IntEnum costs more to look up than an array to compare.
RUNNING, QUEUED, NOT_DUE, LANDED, MANUAL, WAITING, BLOCKED = (np.int8(number) for number in range(7))
FAILED, RETRYING, HELD, READY, SCHEDULED, PAUSED = (np.int8(number) for number in range(7, 13))

# By outcome: whether a partition with it is being built, or will be without anybody's help.
BUSY = np.isin(np.arange(len(Outcome)), (RUNNING, QUEUED, RETRYING, HELD, READY))


@dataclass(frozen=True)
class Reason:
    """One cause of a verdict: partitions of `key` (numbers `first` to `last`) that are in `outcome`.

    For an upstream the outcome is the upstream's; `Outcome.WAITING` on a source means that the raw data
    has not landed. A reason about the table itself carries its own key. `named`: a check failed there that
    blocks the waiting table by name; that may be further up than what it reads itself.
    """

    key: str
    outcome: Outcome
    first: int
    last: int
    named: bool = False

    @property
    def count(self) -> int:
        """How many partitions the reason covers."""
        return self.last - self.first + 1


@dataclass(frozen=True)
class Verdict:
    """The outcome of one partition with its direct reasons, upstreams in declared order."""

    key: str
    index: int
    outcome: Outcome
    stale: bool
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class Request:
    """One run: tables in dependency order for the partitions `first` to `last` (None: unpartitioned).

    `run_key` hashes what made the run necessary: asking twice for the same thing makes one run. `backfill` is
    the id of the backfill that the run is part of, 0 if it is part of none. Runs of a higher `priority` start
    before those of a lower one.
    """

    tables: tuple[str, ...]
    first: str | None
    last: str | None
    partitions: int
    run_key: str
    why: str
    backfill: int = 0
    priority: int = 0
