"""Which partitions a person asks to be built again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypeAlias
from zoneinfo import ZoneInfo

import numpy as np

from t2.errors import ConfigError, NotFound
from t2.planning.grid import Bools, Grid
from t2.planning.inputs import follows, range_any, window_of
from t2.planning.planner import Plan
from t2.planning.verdict import BLOCKED, FAILED
from t2.project.model import Project, Table, Upstream

# By table, an array over its partitions that are due.
Chosen: TypeAlias = dict[str, Bools]


def every(plan: Plan, key: str) -> Bools:
    """Choose all partitions of a table that are due."""
    return np.ones(plan.state.tables[key].count, np.bool_)


def missing(plan: Plan, key: str) -> Bools:
    """Choose the partitions of a table that were never built."""
    found: Bools = plan.state.tables[key].landed_id == 0
    return found


def failed(plan: Plan, key: str) -> Bools:
    """Choose the partitions of a table whose newest attempt failed, or that a failed check blocks."""
    past = plan.state.tables[key]
    outcomes = plan.outcomes[key]
    found: Bools = (past.failed_id > 0) | past.blocked | (outcomes == FAILED) | (outcomes == BLOCKED)
    return found


def between(plan: Plan, key: str, first: str, last: str | None) -> Bools:
    """Choose the partitions from `first` to `last` (None: the newest that is due), each a key or a day.

    A day stands for all partitions that overlap it, on the clock of the table. NotFound or ConfigError if
    there is none of them, or they are not over yet.
    """
    due = plan.state.tables[key].count
    low, _ = _around(plan.project, key, first, due)
    high = _around(plan.project, key, last, due)[1] if last else due - 1
    if high < low:
        raise ConfigError(
            f"the range from {first} to {last} holds no partition of {key}", hint="swap --from and --to"
        )
    found = np.zeros(due, np.bool_)
    found[low : high + 1] = True
    return found


def single(plan: Plan, key: str, names: Sequence[str]) -> Bools:
    """Choose single partitions, each by its key or a day."""
    found: Bools = np.logical_or.reduce([between(plan, key, name, name) for name in names])
    return found


def _around(project: Project, key: str, name: str, due: int) -> tuple[int, int]:
    """Return the numbers of the partition with a key, or of the first and last that a day overlaps."""
    partitioning = project.tables[key].partitioning
    assert partitioning is not None, f"{key} has no partitions"
    grid = Grid.of(partitioning)
    try:
        day = datetime.strptime(name, "%Y-%m-%d")
    except ValueError:
        try:
            low = high = grid.index(name)
        except NotFound as error:
            raise NotFound(f"{key}: {error.message}", hint=error.hint) from error
    else:
        zone = ZoneInfo(grid.timezone)
        end = (day + timedelta(days=1)).replace(tzinfo=zone)
        low, high = grid.at(day.replace(tzinfo=zone)), grid.at(end - timedelta(seconds=1))
    if high < 0:
        raise ConfigError(f"{key} begins with {grid.key(0)}, after {name}")
    if low >= due:
        newest = f"the newest partition that is over is {grid.key(due - 1)}" if due else None
        raise ConfigError(f"{key} {name} is not over yet", hint=newest)
    return max(low, 0), min(high, due - 1)


def with_downstream(project: Project, plan: Plan, chosen: Chosen, roots: Sequence[str]) -> Chosen:
    """Add the partitions that read what is chosen of `roots`, however far down; views are looked through.

    Unpartitioned tables that build by themselves are left out: they follow when the backfill is over.
    """
    reached = set(roots)
    found = {key: flags.copy() for key, flags in chosen.items()}
    for table in project.tables.values():
        count = plan.state.tables[table.key].count
        hit = found.get(table.key, np.zeros(count, np.bool_))
        for upstream in table.upstreams:
            if upstream.key in reached and upstream.key != table.key and found[upstream.key].any():
                hit |= _readers(plan, table, upstream, found[upstream.key], count)
        if table.is_view or not hit.any():
            continue
        if table.partitioning is None and table.by_itself and table.key not in chosen:
            continue
        if any(up.key in reached for up in table.upstreams):
            if table.reads_itself:
                hit[int(np.argmax(hit)) :] = True
            reached.add(table.key)
            found[table.key] = hit
    return found


def _readers(plan: Plan, table: Table, upstream: Upstream, read: Bools, count: int) -> Bools:
    """Return which partitions of a table follow those of an upstream that are told."""
    project = plan.project
    if not follows(project, table, upstream):
        return np.zeros(count, np.bool_)
    if project.node(upstream.key).partitioning is None:
        return np.ones(count, np.bool_)
    low, high = window_of(project, table, upstream, plan.state.tables[upstream.key], count)
    return range_any(read, low, high)


def ranges(flags: Bools) -> tuple[tuple[int, int], ...]:
    """Return the stretches that are set, as (first, last) numbers."""
    edges = np.flatnonzero(np.diff(np.pad(flags.astype(np.int8), 1))).reshape(-1, 2)
    return tuple((int(low), int(high) - 1) for low, high in edges.tolist())


def keys(project: Project, key: str, first: int, last: int) -> tuple[str, str]:
    """Return the partition keys of a range, "" for a table without partitions."""
    partitioning = project.tables[key].partitioning
    grid = Grid.of(partitioning) if partitioning else None
    return (grid.key(first), grid.key(last)) if grid else ("", "")
