"""Which ready partitions share a run."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from t2.planning.backfills import Backlog
from t2.planning.grid import Bools, Grid, Ints
from t2.planning.inputs import joins
from t2.planning.state import State
from t2.planning.verdict import Request
from t2.project.model import Project, Table

# Dagster's queue starts runs of a higher priority first; a run that a person starts has 0.
CATCH_UP_PRIORITY = -1
BACKFILL_PRIORITY = -2
# How many of a table's newest partitions are current.
CURRENT = 2


# What goes first: of no backfill, then of the oldest; what is current, the longest chain of readers first;
# then the oldest, in dependency order. The last number is that of the component.
Rank = tuple[int, bool, int, int, int, int]


@dataclass(frozen=True)
class Chunk:
    """Tables in dependency order and the partitions `first` to `last` of one run, `backfill`'s if not 0."""

    tables: tuple[str, ...]
    first: int
    last: int
    backfill: int = 0


def chunks(
    project: Project,
    state: State,
    ready: Mapping[str, Bools],
    limit: int,
    backlogs: Mapping[str, Backlog] = MappingProxyType({}),
) -> list[Chunk]:
    """Cut what is ready into at most `limit` runs, each with room in all of its tables.

    Runs with current partitions come first, of those the longest chain of readers; then the oldest. What only
    backfills want comes after all else, in the order of their ids.
    """
    room = {key: _room(project.tables[key], state) for key in ready if key in project.tables}
    return cut(project, ready, limit, backlogs, room)


def cut(
    project: Project,
    ready: Mapping[str, Bools],
    limit: int,
    backlogs: Mapping[str, Backlog],
    room: dict[str, int],
) -> list[Chunk]:
    """Do the same with so many runs for each table as there is room for."""
    order = {key: position for position, key in enumerate(project.tables) if key in ready}
    components = [
        _Component(project, keys, order, ready, backlogs) for keys in _connected(project, list(order))
    ]
    waiting: list[Rank] = []
    for number, component in enumerate(components):
        component.hold({key for key in component.keys if room[key] <= 0})
        component.push(waiting, number)
    taken: list[Chunk] = []
    while waiting and len(taken) < limit:
        number = heapq.heappop(waiting)[-1]
        component = components[number]
        chunk = component.take()
        taken.append(chunk)
        for key in chunk.tables:
            room[key] -= 1
        component.hold({key for key in chunk.tables if room[key] <= 0})
        component.push(waiting, number)
    return taken


def request(project: Project, state: State, chunk: Chunk, newest: Mapping[str, Ints]) -> Request:
    """Name a chunk's partitions and hash what made it necessary."""
    first = project.tables[chunk.tables[0]]
    grid = Grid.of(first.partitioning) if first.partitioning else None
    return Request(
        tables=chunk.tables,
        first=grid.key(chunk.first) if grid else None,
        last=grid.key(chunk.last) if grid else None,
        partitions=chunk.last - chunk.first + 1,
        run_key=_run_key(project, state, chunk, newest),
        why="backfill" if chunk.backfill else _why(project, state, chunk),
        backfill=chunk.backfill,
        priority=_priority(project, state, chunk),
    )


class _Component:
    """Ready tables of one grid that are connected by edges along which they may share a run.

    `matrix` has one row a table, in dependency order, and one column a partition; what was taken or
    held is cleared. `backfill` and `coming` say the same of what only backfills want (`Backlog`).
    """

    def __init__(
        self,
        project: Project,
        keys: Sequence[str],
        order: Mapping[str, int],
        ready: Mapping[str, Bools],
        backlogs: Mapping[str, Backlog],
    ) -> None:
        self.project = project
        self.order = order
        self.keys = sorted(keys, key=order.__getitem__)
        self.row = {key: row for row, key in enumerate(self.keys)}
        self.above = [
            [self.row[other] for other in _joined(project, key) if other in self.row] for key in self.keys
        ]
        self.below: list[list[int]] = [[] for _ in self.keys]
        for row, rows in enumerate(self.above):
            for other in rows:
                self.below[other].append(row)
        self.sizes = [project.tables[key].backfill.partitions_per_run for key in self.keys]
        self.matrix = np.stack([ready[key] for key in self.keys])
        self.backfill = np.zeros(self.matrix.shape, np.int64)
        self.coming = np.zeros(self.matrix.shape, np.bool_)
        for row, key in enumerate(self.keys):
            if key in backlogs:
                self.backfill[row], self.coming[row] = backlogs[key].backfill, backlogs[key].coming
        self.current = first_current(project.tables[self.keys[0]], self.matrix.shape[1])
        self.in_order = any(project.tables[key].oldest_first for key in self.keys)
        if self.backfill.any():
            self._part()

    def push(self, waiting: list[Rank], number: int) -> None:
        """Queue what comes next."""
        found = self._next()
        if found is not None:
            backfill, row, column = found
            current = not backfill and self._is_current(row, column)
            partitioning = self.project.tables[self.keys[row]].partitioning
            start = int(Grid.of(partitioning).boundaries(column + 1)[column]) if partitioning else 0
            key = self.keys[row]
            height = self.project.height[key] if current else 0
            heapq.heappush(waiting, (backfill, not current, -height, start, self.order[key], number))

    def take(self) -> Chunk:
        """Take what comes next with what shares its run; hold what is left out and needs it."""
        found = self._next()
        assert found is not None
        backfill, row, first = found
        if backfill:
            last = first + self._full_run(row, backfill)[1] - 1
            rows = self._alike(row, first, last, backfill)
        else:
            rows, last = self._at_once(row, first)
        lost = {own: np.zeros(self.matrix.shape[1], np.bool_) for own in rows}
        for gone in lost.values():
            gone[first : last + 1] = True
        self.matrix[rows, first : last + 1] = False
        self._hold_below(lost)
        return Chunk(tuple(self.keys[own] for own in rows), first, last, backfill)

    def _part(self) -> None:
        """Hold what needs a table in the same run with which it cannot share one.

        A run is of one backfill or of none. In a backfill, tables with another size have runs of their own.
        """
        lost = np.zeros(self.matrix.shape, np.bool_)
        for row, rows in enumerate(self.above):
            for other in rows:
                apart = self.backfill[other] != self.backfill[row]
                if self.sizes[other] != self.sizes[row]:
                    apart |= self.backfill[row] > 0
                lost[row] |= self.matrix[row] & self.matrix[other] & (apart | lost[other])
        self.matrix &= ~lost

    def _next(self) -> tuple[int, int, int] | None:
        """Return the backfill (0: none), row and first column of what is taken next."""
        free = self.matrix & (self.backfill == 0)
        columns: Bools = np.logical_or.reduce(free, axis=0)
        column = int(np.argmax(columns))
        if columns[column]:
            row = int(np.argmax(free[:, column]))
            current = columns[self.current :]
            if current.any() and not self.in_order and not self._is_current(row, column):
                column = self.current + int(np.argmax(current))
                row = int(np.argmax(free[:, column]))
            return 0, row, column
        for backfill in np.unique(self.backfill[self.matrix]).tolist():
            found = []
            for row in np.flatnonzero((self.matrix & (self.backfill == backfill)).any(axis=1)).tolist():
                first, length = self._full_run(row, backfill)
                needed = self.matrix[self.above[row], first : first + length]
                if length and not needed.any():
                    found.append((first, row))
            if found:
                column, row = min(found)
                return backfill, row, column
        return None

    def _is_current(self, row: int, first: int) -> bool:
        """Whether a run from a column on has a partition that is current."""
        last = first if first >= self.current else self._at_once(row, first)[1]
        return bool(last >= self.current)

    def _full_run(self, row: int, backfill: int) -> tuple[int, int]:
        """Return the first column and the length of the oldest run of a row that is ready to its end.

        What is ready or coming is cut into runs of the table's size; a run waits until all of it is ready.
        The length is 0 if there is none.
        """
        here = self.backfill[row] == backfill
        ready = self.matrix[row] & here
        edges = np.flatnonzero(np.diff(np.pad((ready | (self.coming[row] & here)).astype(np.int8), 1)))
        starts = np.concatenate(
            [np.arange(low, high, self.sizes[row]) for low, high in edges.reshape(-1, 2).tolist()]
        )
        ends = np.minimum(
            starts + self.sizes[row], edges[1::2][np.searchsorted(edges[1::2], starts, "right")]
        )
        sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(ready)])
        full = sums[ends] - sums[starts] == ends - starts
        chosen = int(np.argmax(full))
        return (int(starts[chosen]), int(ends[chosen] - starts[chosen])) if full[chosen] else (0, 0)

    def _alike(self, row: int, first: int, last: int, backfill: int) -> list[int]:
        """Return the rows that do the whole span of a backfill's run with a row, at the same size."""
        here = (self.matrix & (self.backfill == backfill))[:, first : last + 1]
        whole = here.all(axis=1) & (np.array(self.sizes) == self.sizes[row])
        for below in range(len(self.keys)):
            if any(here[other].any() and not whole[other] for other in self.above[below]):
                whole[below] = False
        return self._sharing(row, whole)

    def _at_once(self, row: int, first: int) -> tuple[list[int], int]:
        """Return the rows that share a run from a column on, and its last column.

        The run is as long as the first table allows and just the same tables would share it. Tables that
        build fewer partitions in a run, and what needs those, stay out of it rather than cut it short.
        """
        free = self.matrix & (self.backfill == 0)
        rows = self._sharing(row, free[:, first])
        around = sorted({other for own in rows for other in self._beside(own)} - set(rows))
        span = slice(first, first + self.sizes[row])
        same: Bools = np.logical_and.reduce(free[rows, span], axis=0)
        same &= ~np.logical_or.reduce(free[around, span], axis=0)
        length = len(same) if same.all() else int(np.argmin(same))
        stays = np.zeros(len(self.keys), np.bool_)
        for own in rows:
            needs = [other for other in self.above[own] if other in rows]
            stays[own] = self.sizes[own] >= length and bool(stays[needs].all())
        return self._sharing(row, stays), first + length - 1

    def hold(self, full: set[str]) -> None:
        """Clear tables without room, and what would share a run with them downstream."""
        lost = {row: self.matrix[row].copy() for row, key in enumerate(self.keys) if key in full}
        for row in lost:
            self.matrix[row] = False
        self._hold_below(lost)

    def _hold_below(self, lost: dict[int, Bools]) -> None:
        """Clear what needs, in the same run, columns of rows that are lost to it."""
        for row in range(len(self.keys)):
            above = [lost[other] for other in self.above[row] if other in lost]
            if not above or row in lost:
                continue
            gone = self.matrix[row] & np.logical_or.reduce(above)
            if gone.any():
                lost[row] = gone
                self.matrix[row] &= ~gone

    def _beside(self, row: int) -> list[int]:
        return self.above[row] + self.below[row]

    def _sharing(self, row: int, present: Bools) -> list[int]:
        """Return the rows that are connected with a row by rows that are all present."""
        found, todo = {row}, [row]
        while todo:
            fresh = {other for other in self._beside(todo.pop()) if present[other]} - found
            found |= fresh
            todo.extend(fresh)
        return sorted(found)


def first_current(table: Table, count: int) -> int:
    """Return the number of a table's first current partition; of one that has come to its end none is."""
    if table.partitioning is None:
        return 0
    ended = Grid.of(table.partitioning).total == count
    return count if ended else max(count - CURRENT, 0)


def _room(table: Table, state: State) -> int:
    """Return how many more runs may build a table now."""
    return table.runs_at_once - state.tables[table.key].active_runs


def _joined(project: Project, key: str) -> list[str]:
    table = project.tables[key]
    return [upstream.key for upstream in table.upstreams if joins(project, table, upstream)]


def _connected(project: Project, keys: Sequence[str]) -> Iterator[list[str]]:
    """Group tables that are connected by edges along which they may share a run."""
    neighbours: dict[str, list[str]] = {key: [] for key in keys}
    for key in keys:
        for other in _joined(project, key):
            if other in neighbours:
                neighbours[key].append(other)
                neighbours[other].append(key)
    seen: set[str] = set()
    for key in keys:
        if key not in seen:
            seen.add(key)
            group, todo = [], [key]
            while todo:
                group.append(todo.pop())
                fresh = set(neighbours[group[-1]]) - seen
                seen |= fresh
                todo.extend(fresh)
            yield group


def _run_key(project: Project, state: State, chunk: Chunk, newest: Mapping[str, Ints]) -> str:
    digest = hashlib.sha256(f"{chunk.first}:{chunk.last}".encode())
    span = slice(chunk.first, chunk.last + 1)
    for key in chunk.tables:
        past = state.tables[key]
        digest.update(f"{key}:{project.tables[key].code_version}:{past.wiped_id}".encode())
        for array in (past.landed_id, past.failed_id, newest[key]):
            digest.update(np.ascontiguousarray(array[span]).tobytes())
    return digest.hexdigest()[:32]


def _priority(project: Project, state: State, chunk: Chunk) -> int:
    """Return 0 for a run with current partitions, less for what catches up, least for a backfill."""
    if chunk.backfill:
        return BACKFILL_PRIORITY
    first = project.tables[chunk.tables[0]]
    is_current = chunk.last >= first_current(first, state.tables[first.key].count)
    return 0 if is_current else CATCH_UP_PRIORITY


def _why(project: Project, state: State, chunk: Chunk) -> str:
    span = slice(chunk.first, chunk.last + 1)
    pasts = [state.tables[key] for key in chunk.tables]
    if any((past.failed_id[span] > 0).any() for past in pasts):
        return "retry"
    if all((past.landed_id[span] == 0).any() for past in pasts):
        return "missing"
    if any(_code_differs(state, project.tables[key], span) for key in chunk.tables):
        return "code changed"
    return "input changed"


def _code_differs(state: State, table: Table, span: slice) -> bool:
    past = state.tables[table.key]
    return table.follows_code and bool((past.code[span] != state.code_id(table.code_version)).any())
