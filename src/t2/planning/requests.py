"""Which ready partitions share a run."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from t2.planning.grid import Grid
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


def chunks(project: Project, ready: Mapping[str, Bools]) -> list[Chunk]:
    """Cut what is ready into runs, oldest partitions first."""
    found = [
        chunk for component in _components(project, list(ready)) for chunk in _cut(project, component, ready)
    ]
    order = {key: position for position, key in enumerate(project.tables)}
    return sorted(found, key=lambda chunk: (_start(project, chunk), order[chunk.tables[0]]))


def accept(
    project: Project, state: State, found: Iterable[Chunk], max_requests: int
) -> tuple[list[Chunk], list[Chunk]]:
    """Split chunks into those that fit the tables' `backfill.concurrency` and those that are held."""
    active = {key: past.active_runs for key, past in state.tables.items()}
    taken: list[Chunk] = []
    held: list[Chunk] = []
    for chunk in found:
        fits = len(taken) < max_requests and all(
            active[key] < project.tables[key].backfill.concurrency for key in chunk.tables
        )
        (taken if fits else held).append(chunk)
        if fits:
            for key in chunk.tables:
                active[key] += 1
    return taken, held


def request(project: Project, state: State, chunk: Chunk, newest: Mapping[str, np.ndarray]) -> Request:
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


def _components(project: Project, keys: Sequence[str]) -> Iterator[list[str]]:
    """Group tables that are connected by edges along which they may share a run."""
    ready = set(keys)
    neighbours: dict[str, list[str]] = {key: [] for key in keys}
    for key in keys:
        table = project.tables[key]
        for upstream in table.upstreams:
            if upstream.key in ready and joins(project, table, upstream):
                neighbours[key].append(upstream.key)
                neighbours[upstream.key].append(key)
    seen: set[str] = set()
    order = {key: position for position, key in enumerate(project.tables)}
    for key in keys:
        if key not in seen:
            component, todo = [], [key]
            seen.add(key)
            while todo:
                current = todo.pop()
                component.append(current)
                fresh = [other for other in neighbours[current] if other not in seen]
                seen.update(fresh)
                todo.extend(fresh)
            yield sorted(component, key=order.__getitem__)


def _cut(project: Project, component: list[str], ready: Mapping[str, Bools]) -> Iterator[Chunk]:
    """Cut a component where the set of ready tables changes, then to the smallest size allowed."""
    matrix = np.stack([ready[key] for key in component])
    any_ready = np.atleast_1d(matrix.any(axis=0))
    changes = np.flatnonzero((matrix[:, 1:] != matrix[:, :-1]).any(axis=0)) + 1
    edges = [0, *changes.tolist(), matrix.shape[1]]
    for low, high in itertools.pairwise(edges):
        if not any_ready[low]:
            continue
        present = [key for key, row in zip(component, matrix, strict=True) if row[low]]
        for tables in _components(project, present) if len(present) < len(component) else [present]:
            size = min(project.tables[key].backfill.partitions_per_run for key in tables)
            for first in range(low, high, size):
                yield Chunk(tuple(tables), first, min(first + size, high) - 1)


def _start(project: Project, chunk: Chunk) -> int:
    """Return when a chunk's window starts; unpartitioned tables come first."""
    partitioning = project.tables[chunk.tables[0]].partitioning
    if partitioning is None:
        return 0
    return int(Grid.of(partitioning).boundaries(chunk.first + 1)[chunk.first])


def _run_key(project: Project, state: State, chunk: Chunk, newest: Mapping[str, np.ndarray]) -> str:
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
