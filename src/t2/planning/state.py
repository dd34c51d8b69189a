"""What the planner knows of the past: arrays over partitions, one bundle a table.

The ledger fills these; the planner only reads them. Event ids are positions in Dagster's event log.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNKNOWN_CODE = -1


class Active(IntEnum):
    """What runs now for a partition."""

    NO = 0
    QUEUED = 1
    RUNNING = 2


@dataclass
class TableState:
    """One table's or source's past; every array has one entry a partition (length 1 when unpartitioned).

    `landed_id`, `as_of`, `failed_id`, `failed_as_of`: event ids, 0 where there is none.
    `landed_at`, `failed_at`: epoch seconds, NaN where there is none.
    `blocked`: a check failed that blocks all readers, or the checks of the newest materialization never ran.
    `barred`: by key of a table, where a check failed that blocks that table, but not all readers.
    `active`: `Active`. `code`, `failed_code`: ids of code versions (`State.codes`) or UNKNOWN_CODE.
    `failures`: failed attempts with the same code since the last landing, whatever the inputs.
    `canceled`: the newest attempt was canceled by a person.
    `active_runs`: how many runs that have not ended still have partitions of this table to build or check.
    `wiped_id`: a number that the newest wipe of the table has and no other, 0 if there was none.
    `failing`: the checks that hold back readers of some partition. `checked_at`: when each daily check was
    last evaluated on any, in epoch seconds.
    """

    landed_id: NDArray[np.int64]
    as_of: NDArray[np.int64]
    landed_at: NDArray[np.float64]
    code: NDArray[np.int32]
    blocked: NDArray[np.bool_]
    active: NDArray[np.int8]
    failed_id: NDArray[np.int64]
    failed_as_of: NDArray[np.int64]
    failed_at: NDArray[np.float64]
    failed_code: NDArray[np.int32]
    failures: NDArray[np.int32]
    canceled: NDArray[np.bool_]
    active_runs: int = 0
    wiped_id: int = 0
    barred: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    failing: frozenset[str] = frozenset()
    checked_at: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def empty(cls, count: int) -> TableState:
        """Return the state of a table of which nothing is known yet."""
        return cls(
            landed_id=np.zeros(count, np.int64),
            as_of=np.zeros(count, np.int64),
            landed_at=np.full(count, np.nan),
            code=np.full(count, UNKNOWN_CODE, np.int32),
            blocked=np.zeros(count, np.bool_),
            active=np.zeros(count, np.int8),
            failed_id=np.zeros(count, np.int64),
            failed_as_of=np.zeros(count, np.int64),
            failed_at=np.full(count, np.nan),
            failed_code=np.full(count, UNKNOWN_CODE, np.int32),
            failures=np.zeros(count, np.int32),
            canceled=np.zeros(count, np.bool_),
        )

    @property
    def count(self) -> int:
        """Number of partitions."""
        return len(self.landed_id)

    def rest(self, start: int) -> TableState:
        """Return the same of the partitions from a number on; the arrays are views."""
        rest = copy(self)
        for name in ARRAYS:
            setattr(rest, name, getattr(self, name)[start:])
        rest.barred = {key: failed[start:] for key, failed in self.barred.items()}
        return rest

    def differs_from(self, other: TableState) -> int:
        """Return the first partition of which this and an earlier state say different things."""
        length = min(self.count, other.count)
        first = length
        for name in ARRAYS:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine is not theirs:
                first = first_difference(mine[:first], theirs[:first])
        return first

    @property
    def shut(self) -> NDArray[np.bool_]:
        """Where a check failed that holds back some reader, or the checks never ran."""
        shut = self.blocked
        for failed in self.barred.values():
            shut = shut | failed
        return shut

    @property
    def landed(self) -> NDArray[np.bool_]:
        """Materialized, and no blocking check failed."""
        return (self.landed_id > 0) & ~self.blocked


# The fields of a TableState that have one entry a partition.
ARRAYS = tuple(name for name, value in vars(TableState.empty(0)).items() if isinstance(value, np.ndarray))


def first_difference(one: NDArray[Any], other: NDArray[Any]) -> int:
    """Return the first place where two arrays of one length differ, their length if nowhere; NaN is NaN."""
    if one.dtype == np.float64:
        one, other = one.view(np.int64), other.view(np.int64)
    different = one != other
    return int(np.argmax(different)) if different.any() else len(one)


@dataclass(frozen=True)
class Wanted:
    """What running backfills want of one table; both arrays have one entry a partition.

    `backfill`: the id of the backfill that wants the partition, 0 where none does. `since`: the least `as_of`
    of a build that counts for it.
    """

    backfill: NDArray[np.int64]
    since: NDArray[np.int64]


@dataclass(frozen=True)
class Pause:
    """Somebody's order that a table is not built until an instant (epoch seconds, inf: for good)."""

    until: float
    reason: str
    by: str
    since: float


@dataclass
class State:
    """The whole ledger as arrays.

    `tables` by key, sources too; `codes`: ids by code version; `cursor`: the last event id. `changed`: the
    tables that are not the same object as in the ledger's state before this one (all at first).
    `wanted`: what running backfills want, for the tables of which they want something. `paused`: the tables
    that nobody but a person builds; a pause that is over counts no more.
    """

    tables: Mapping[str, TableState]
    codes: Mapping[str, int] = field(default_factory=dict)
    cursor: int = 0
    changed: frozenset[str] = frozenset()
    wanted: Mapping[str, Wanted] = field(default_factory=dict)
    paused: Mapping[str, Pause] = field(default_factory=dict)

    def code_id(self, version: str) -> int:
        """Return the id of a code version, UNKNOWN_CODE if nothing was ever built with it."""
        return self.codes.get(version, UNKNOWN_CODE)
