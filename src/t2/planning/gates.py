"""Failed checks that block named tables, not all readers of what they failed on.

A named table may be built neither from a partition on which the check failed nor from what was built from
that, however far down. So each table passes on to its readers what it may not be passed on to, by name.
"""

from __future__ import annotations

import numpy as np

from t2.planning.grid import Bools
from t2.planning.inputs import range_any, window_of
from t2.planning.state import State, TableState
from t2.project.model import Project, Source, Table, Upstream

# By key of a table that a failed check names: from which partitions it may not be built.
Barred = dict[str, Bools]


class Gates:
    """What is barred in one tick, worked out table by table in dependency order."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._read: dict[str, Barred] = {}
        self._pasts: dict[str, TableState] = {}
        self._passed_on: dict[str, Barred] = {}

    def closed(self, table: Table, past: TableState) -> Bools:
        """Return which partitions of a table may not be built from what they would read."""
        read = self._read[table.key] = self._reads(table, past)
        return read.get(table.key, np.zeros(past.count, np.bool_))

    def pass_on(self, node: Table | Source, past: TableState, ready: Bools, anew: Bools) -> None:
        """Keep what readers have to know of a node.

        `ready`: what is built in this tick; `anew`: what readers share that run with, and so its checks.
        """
        if isinstance(node, Table) and node.is_view:
            return  # readers look through it
        self._pasts[node.key] = past
        there = past.landed_id > 0
        passed = {key: where & (there | ready) for key, where in self._read.get(node.key, {}).items()}
        for key, failed in past.barred.items():
            _add(passed, key, failed & there & ~anew)
        if passed:
            self._passed_on[node.key] = passed

    def bars(self, key: str) -> bool:
        """Whether a node passes anything on to its readers."""
        return key in self._passed_on

    def causes(self, state: State, key: str, index: int) -> list[tuple[str, int]]:
        """Return the partitions, however far up, on which a check failed that closes a table's partition."""
        found: set[tuple[str, int]] = set()
        todo, seen = [(key, index)], {(key, index)}
        while todo:
            reader, number = todo.pop()
            table = self._project.tables[reader]
            for upstream in table.upstreams:
                passed = self._passed_on.get(upstream.key, {}).get(key)
                if upstream.key == reader:  # as in `_reads`: also what is not there or built anew
                    passed = _either(passed, self._read.get(reader, {}).get(key))
                    passed = _either(passed, state.tables[reader].barred.get(key))
                parts = [] if passed is None else self._numbers(table, upstream, number, passed)
                for part in ((upstream.key, i) for i in parts):
                    failed = state.tables[part[0]].barred.get(key)
                    if failed is not None and failed[part[1]]:
                        found.add(part)
                    if part[0] in self._project.tables and part not in seen:
                        seen.add(part)
                        todo.append(part)
        return sorted(found)

    def _reads(self, table: Table, past: TableState) -> Barred:
        found: Barred = {}
        if table.is_view:
            return found
        for upstream in table.upstreams:
            if upstream.key != table.key:
                for key, where in self._passed_on.get(upstream.key, {}).items():
                    _add(found, key, self._seen(table, upstream, where, past.count))
        if table.reads_itself:
            # Each partition reads the one before, and so all that this one may not be passed on to.
            for key in found.keys() | past.barred.keys():
                none = np.zeros(past.count, np.bool_)
                here = found.get(key, none) | (past.barred.get(key, none) & (past.landed_id > 0))
                _add(found, key, np.append(False, np.logical_or.accumulate(here)[:-1])[: past.count])
        return found

    def _seen(self, table: Table, upstream: Upstream, where: Bools, count: int) -> Bools:
        """Return which partitions of a reader read any that is told."""
        if self._project.node(upstream.key).partitioning is None:
            return np.full(count, where.any())
        low, high = window_of(self._project, table, upstream, self._pasts[upstream.key], count)
        return range_any(where, low, high)

    def _numbers(self, table: Table, upstream: Upstream, index: int, where: Bools) -> list[int]:
        """Return the partitions, of those told, that one partition of a reader reads."""
        low, high = 0, len(where)
        if self._project.node(upstream.key).partitioning is not None:
            past = self._pasts[upstream.key]
            lows, highs = window_of(self._project, table, upstream, past, index + 1)
            low, high = int(lows[index]), int(highs[index])
        return [low + int(i) for i in np.flatnonzero(where[low:high])]


def _add(barred: Barred, key: str, where: Bools) -> None:
    barred[key] = barred[key] | where if key in barred else where


def _either(one: Bools | None, other: Bools | None) -> Bools | None:
    return other if one is None else one if other is None else one | other
