"""Small runs put together: starting a run takes longer than building most tables.

Requests for the same partition that no edge connects are independent, and still may share a process. Each
table keeps its own step, outcome and retries, so what is shared is the start of the run and, if its process
dies, the attempt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable
from dataclasses import replace

from t2.planning.grid import Grid
from t2.planning.verdict import Request
from t2.project.model import Project

# With 8, an eighth of a start falls to each table; more would keep ready tables behind the run's few threads.
TABLES_TOGETHER = 8


def packed(project: Project, requests: Iterable[Request], tables: int = TABLES_TOGETHER) -> list[Request]:
    """Put requests together while they have no more than so many tables; a run's place is its first one's.

    Left alone are ranges, backfills, and tables that are isolated or read themselves.
    """
    runs: list[list[Request]] = []
    sizes: list[int] = []
    open_runs: dict[Hashable, int] = {}
    for request in requests:
        kind = _kind(project, request)
        number = open_runs.get(kind) if kind else None
        if number is not None and sizes[number] + len(request.tables) <= tables:
            runs[number].append(request)
            sizes[number] += len(request.tables)
            continue
        runs.append([request])
        sizes.append(len(request.tables))
        if kind:
            open_runs[kind] = len(runs) - 1
    order = {key: position for position, key in enumerate(project.tables)}
    return [_together(run, order) for run in runs]


def _kind(project: Project, request: Request) -> Hashable:
    """Return what requests that share a run have in common, None for one that has its own."""
    tables = [project.tables[key] for key in request.tables]
    alone = any(table.isolation == "table" or table.reads_itself for table in tables)
    if alone or request.backfill or request.partitions > 1:
        return None
    partitioning = tables[0].partitioning
    return partitioning and Grid.of(partitioning), request.first, request.priority, request.why


def _together(requests: list[Request], order: dict[str, int]) -> Request:
    if len(requests) == 1:
        return requests[0]
    keys = sorted((key for request in requests for key in request.tables), key=order.__getitem__)
    digest = hashlib.sha256(" ".join(request.run_key for request in requests).encode())
    return replace(requests[0], tables=tuple(keys), run_key=digest.hexdigest()[:32])
