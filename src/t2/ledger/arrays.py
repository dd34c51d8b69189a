"""The ledger as the planner's arrays, kept in memory and brought up to date with what changed.

What landed is a lot and is loaded once, then row by row. Everything else (what is incomplete, blocked or
failed) is little, and is worked out anew for each table that changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from t2.ledger.gates import Gate
from t2.ledger.outcomes import Outcomes, TableOutcomes
from t2.ledger.positions import positions
from t2.ledger.schema import check_totals, partitions, touched, wipes
from t2.planning.grid import Grid
from t2.planning.state import UNKNOWN_CODE, Active, State, TableState
from t2.project.model import Project

_LANDINGS = sa.select(
    partitions.c.partition,
    partitions.c.event_id,
    partitions.c.at,
    partitions.c.code_version,
    partitions.c.as_of,
).where(
    partitions.c.table_key == sa.bindparam("key"),
    # Keys sort as their windows do: those from `onward` on were not over yet when the table was loaded.
    sa.or_(partitions.c.event_id > sa.bindparam("after"), partitions.c.partition >= sa.bindparam("onward")),
)
_TOTALS = sa.select(check_totals.c.check_name, check_totals.c.at).where(
    check_totals.c.table_key == sa.bindparam("key")
)
# A longer key is none of a grid's, cut off or not.
_ROW = np.dtype([("partition", "U17"), ("id", "i8"), ("at", "f8"), ("code", "O"), ("as_of", "i8")])
_NEVER = "~"  # sorts after every key


class Arrays:
    """The arrays of one project's tables and sources."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._grids = {
            node.key: Grid.of(node.partitioning) if node.partitioning else None for node in project.nodes()
        }
        self._daily = {
            node.key: daily for node in project.nodes() if (daily := {t.name for t in node.tests if t.daily})
        }
        self._tables: dict[str, TableState] = {}
        self._codes: dict[str, int] = {}
        self._position = self._seq = self._epoch = -1
        self._now = self._until = float("-inf")
        self._counts: dict[str, int] = {}

    def refresh(self, connection: Connection, now: datetime, *, position: int, seq: int, epoch: int) -> State:
        """Return the state at `now`; `position`, `seq` and `epoch` are those of the ledger's cursor."""
        cold = epoch != self._epoch
        reset = set(self._grids) if cold else self._touched(connection, touched.c.reset_seq)
        changed = reset if cold else reset | self._touched(connection, touched.c.seq)
        changed = changed | self._recount(now)
        if changed:
            tables = {} if cold else dict(self._tables)
            tables.update(self._load(connection, changed, reset))
            self._tables = tables
        self._position, self._seq, self._epoch = position, seq, epoch
        return State(self._tables, dict(self._codes), position, frozenset(changed))

    def _touched(self, connection: Connection, column: sa.Column[int]) -> set[str]:
        keys: set[str] = set(connection.scalars(sa.select(touched.c.table_key).where(column > self._seq)))
        return keys & self._grids.keys()

    def _recount(self, now: datetime) -> set[str]:
        """Count the partitions that are over; return the tables that have not as many as before."""
        instant = now.timestamp()
        if self._now <= instant < self._until:
            return set()
        ends: dict[Grid | None, tuple[int, float]] = {None: (1, float("inf"))}
        for grid in self._grids.values():
            if grid is not None and grid not in ends:
                count = grid.count(now)
                ends[grid] = (count, grid.next_change(count))
        before, self._counts = self._counts, {key: ends[grid][0] for key, grid in self._grids.items()}
        self._now, self._until = instant, min(end for _, end in ends.values())
        return {key for key, count in self._counts.items() if before.get(key) != count}

    def _load(self, connection: Connection, changed: set[str], reset: set[str]) -> dict[str, TableState]:
        wiped = {row.table_key: row.at for row in connection.execute(sa.select(wipes))}
        outcomes = Outcomes(
            connection, self.project, changed, wiped, everything=len(changed) == len(self._grids)
        )
        loaded = {}
        checked_at = self._checked_at(connection, changed & self._daily.keys())
        for key in changed:
            past = self._landings(connection, key, fresh=key in reset)
            past.checked_at = checked_at.get(key, {})
            past.wiped_id = int(wiped.get(key, 0) * 1000)
            self._fill(key, past, outcomes.of(key))
            loaded[key] = past
        return loaded

    def _landings(self, connection: Connection, key: str, *, fresh: bool) -> TableState:
        """Return new arrays with what landed; the rest of them is empty."""
        grid, count = self._grids[key], self._counts[key]
        past = TableState.empty(count)
        after, onward = -1, _NEVER
        if not fresh and key in self._tables:
            old = self._tables[key]
            kept = min(old.count, count)
            for name in ("landed_id", "as_of", "landed_at", "code"):
                getattr(past, name)[:kept] = getattr(old, name)[:kept]
            after = self._position
            if grid is not None and count > kept:
                onward = grid.key(kept)
        result = connection.execute(_LANDINGS, {"key": key, "after": after, "onward": onward})
        # Row by row from the driver's own cursor: millions of tuples at once keep the garbage collector busy.
        cursor: Any = result.cursor
        rows = np.fromiter(cursor, _ROW)
        if len(rows):
            numbers = positions(grid, rows["partition"], count)
            rows, index = rows[numbers >= 0], numbers[numbers >= 0]
            past.landed_id[index] = rows["id"]
            past.landed_at[index] = rows["at"]
            past.code[index] = self._code_ids(rows["code"].tolist())
            past.as_of[index] = rows["as_of"]
        return past

    def _checked_at(self, connection: Connection, keys: Iterable[str]) -> dict[str, dict[str, float]]:
        """Return when the daily checks of some tables were last evaluated."""
        found: dict[str, dict[str, float]] = {}
        for key in keys:
            rows: Iterable[Any] = connection.execute(_TOTALS, {"key": key})
            found[key] = {name: at for name, at in rows if name in self._daily[key]}
        return found

    def _code_ids(self, versions: Sequence[str]) -> NDArray[np.int32]:
        for version in sorted(set(versions) - self._codes.keys() - {""}):
            self._codes[version] = len(self._codes)
        ids = (self._codes.get(version, UNKNOWN_CODE) for version in versions)
        return np.fromiter(ids, np.int32, len(versions))

    def _fill(self, key: str, past: TableState, outcomes: TableOutcomes) -> None:
        """Write what is active, blocked and failed into the arrays."""
        grid = self._grids[key]
        past.active_runs = outcomes.active_runs
        for partition, index in _indexed(grid, outcomes.active, past.count):
            past.active[index] = Active.RUNNING if outcomes.active[partition] else Active.QUEUED
        for _, index in _indexed(grid, dict.fromkeys(outcomes.unchecked), past.count):
            past.blocked[index] = True
        for gate in outcomes.gates:
            self._close(grid, past, gate)
        past.failing = frozenset(gate.check for gate in outcomes.gates)
        for partition, index in _indexed(grid, outcomes.attempts, past.count):
            attempts = outcomes.attempts[partition]
            newest = max(attempts)
            past.failed_id[index] = newest.id
            past.failed_at[index] = newest.at
            past.failed_as_of[index] = newest.as_of
            past.failed_code[index] = self._code_ids([newest.code_version])[0]
            past.failures[index] = sum(item.code_version == newest.code_version for item in attempts)
            past.canceled[index] = newest.kind == "canceled"

    def _close(self, grid: Grid | None, past: TableState, gate: Gate) -> None:
        """Mark the partitions that a failed check holds back."""
        shut = np.zeros(past.count, np.bool_)
        for _, index in _indexed(grid, gate.partitions, past.count):
            shut[index] = True
        if gate.since is not None:
            shut |= past.landed_id > gate.since
        if gate.held is None:
            past.blocked |= shut
        for key in gate.held or ():
            past.barred[key] = past.barred[key] | shut if key in past.barred else shut


def _indexed(grid: Grid | None, values: Mapping[str, Any], count: int) -> list[tuple[str, int]]:
    """Return the keys of a mapping that are partitions, with their numbers."""
    if not values:
        return []
    keys = list(values)
    numbers = positions(grid, keys, count).tolist()
    return [(key, number) for key, number in zip(keys, numbers, strict=True) if number >= 0]
