"""Which ready partitions share a run."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from t2.planning.grid import Grid, Ints
from t2.planning.inputs import Bools, joins
from t2.planning.state import State
from t2.planning.verdict import Request
from t2.project.model import Project, Table


@dataclass(frozen=True)
class Chunk:
    """Tables in dependency order and the partitions `first` to `last` of one run."""

    tables: tuple[str, ...]
    first: int
    last: int


def chunks(project: Project, state: State, ready: Mapping[str, Bools], limit: int) -> list[Chunk]:
    """Cut what is ready into at most `limit` runs, oldest first, each with room in all of its tables."""
    order = {key: position for position, key in enumerate(project.tables) if key in ready}
    room = {key: _room(project.tables[key], state) for key in order}
    components = [_Component(project, keys, order, ready) for keys in _connected(project, list(order))]
    waiting: list[tuple[int, int, int]] = []
    for number, component in enumerate(components):
        component.hold({key for key in component.keys if room[key] <= 0})
        component.push(waiting, number)
    taken: list[Chunk] = []
    while waiting and len(taken) < limit:
        number = heapq.heappop(waiting)[2]
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
        why=_why(project, state, chunk),
    )


class _Component:
    """Ready tables of one grid that are connected by edges along which they may share a run.

    `matrix` has one row a table, in dependency order, and one column a partition; what was taken or
    held is cleared.
    """

    def __init__(
        self, project: Project, keys: Sequence[str], order: Mapping[str, int], ready: Mapping[str, Bools]
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
        self.matrix = np.stack([ready[key] for key in self.keys])

    def push(self, waiting: list[tuple[int, int, int]], number: int) -> None:
        """Queue the oldest partition that is left, by the start of its window and its first table."""
        found = self._oldest()
        if found is not None:
            row, column = found
            partitioning = self.project.tables[self.keys[row]].partitioning
            start = int(Grid.of(partitioning).boundaries(column + 1)[column]) if partitioning else 0
            heapq.heappush(waiting, (start, self.order[self.keys[row]], number))

    def take(self) -> Chunk:
        """Take the oldest partition with what shares its run, and the next ones if they do just the same."""
        found = self._oldest()
        assert found is not None
        row, first = found
        rows = self._sharing(row, first)
        around = sorted({other for own in rows for other in self._beside(own)} - set(rows))
        size = min(self.project.tables[self.keys[own]].backfill.partitions_per_run for own in rows)
        span = slice(first, first + size)
        here, there = self.matrix[rows, span], self.matrix[around, span]
        same: Bools = np.logical_and.reduce(here, axis=0) & ~np.logical_or.reduce(there, axis=0)
        length = len(same) if same.all() else int(np.argmin(same))
        self.matrix[rows, first : first + length] = False
        return Chunk(tuple(self.keys[own] for own in rows), first, first + length - 1)

    def hold(self, full: set[str]) -> None:
        """Clear tables without room, and what would share a run with them downstream."""
        if not full:
            return
        lost: dict[int, Bools] = {}
        for row, key in enumerate(self.keys):
            if key in full:
                gone = self.matrix[row].copy()
            else:
                above = [lost[other] for other in self.above[row] if other in lost]
                if not above:
                    continue
                gone = self.matrix[row] & np.logical_or.reduce(above)
            if gone.any():
                lost[row] = gone
                self.matrix[row] &= ~gone

    def _oldest(self) -> tuple[int, int] | None:
        columns: Bools = np.logical_or.reduce(self.matrix, axis=0)
        column = int(np.argmax(columns))
        return (int(np.argmax(self.matrix[:, column])), column) if columns[column] else None

    def _beside(self, row: int) -> list[int]:
        return self.above[row] + self.below[row]

    def _sharing(self, row: int, column: int) -> list[int]:
        """Return the rows that are connected with a row by tables that are all ready in a column."""
        present = self.matrix[:, column]
        found, todo = {row}, [row]
        while todo:
            fresh = {other for other in self._beside(todo.pop()) if present[other]} - found
            found |= fresh
            todo.extend(fresh)
        return sorted(found)


def _room(table: Table, state: State) -> int:
    """Return how many more runs may build a table now.

    dbt's own incremental materializations share a temporary relation between builds of one table.
    """
    allowed = table.backfill.concurrency if table.materialized == "partitioned" else 1
    return allowed - state.tables[table.key].active_runs


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
