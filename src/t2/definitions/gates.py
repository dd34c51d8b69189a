"""What a step asks before it builds: whether a check that names its table has failed upstream.

The planner asks for nothing that is held back. But where a run builds and checks an upstream first, its
readers look again, by the planner's own rule. Who asks for a table alone gets it, whatever has failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import dagster as dg
import numpy as np

from t2.ledger.ledger import Ledger
from t2.ledger.storage import locate
from t2.planning.gates import Gates
from t2.planning.grid import Grid
from t2.planning.state import State
from t2.project.model import Project, Table

# The tag of a run that comes after others in one command: which of those tables they built.
BUILT_BEFORE = "t2/built_before"

Key = str | None


def closed(
    project: Project,
    instance: dg.DagsterInstance,
    run: dg.DagsterRun,
    table: Table,
    keys: Sequence[Key],
    now: datetime,
) -> dict[Key, str]:
    """Return the partitions of a table that may not be built, each with the failed checks that say so."""
    blockers = project.blockers.get(table.key, ())
    if blockers:
        selected = _selected(instance, run)
        blockers = tuple(key for key in blockers if selected is None or key in selected)
    if not blockers or instance.is_ephemeral:
        return {}
    part = _between(project, blockers, table.key)
    ledger = Ledger(locate(Path(instance.root_directory)))
    try:
        ledger.follow()
        state = ledger.state(part, now)
        gates = _gates(part, state)
        shut = gates.closed(part.tables[table.key], state.tables[table.key])
        grid = Grid.of(table.partitioning) if table.partitioning else None
        numbers = {key: grid.index(key) if grid and key else 0 for key in keys}
        return {
            key: _why(part, ledger, gates, state, table.key, index)
            for key, index in numbers.items()
            if index < len(shut) and shut[index]
        }
    finally:
        ledger.engine.dispose()


def _selected(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[str] | None:
    """Return the tables that a run, or a run that it retries, is to build; None for all."""
    found = set(run.tags.get(BUILT_BEFORE, "").split(","))
    ancestor: dg.DagsterRun | None = run
    while ancestor is not None:
        if not ancestor.asset_selection:
            return None
        found.update("/".join(key.path) for key in ancestor.asset_selection)
        ancestor = instance.get_run_by_id(ancestor.parent_run_id) if ancestor.parent_run_id else None
    return found


def _between(project: Project, blockers: Sequence[str], key: str) -> Project:
    """Return the part of a project that lies between some nodes and a table that reads them."""
    above = {key}
    for name in reversed(list(project.tables)):
        if name in above:
            above.update(upstream.key for upstream in project.tables[name].upstreams)
    between = set(blockers)
    for table in project.tables.values():
        if table.key in above and any(upstream.key in between for upstream in table.upstreams):
            between.add(table.key)
    return replace(
        project,
        tables={
            name: replace(table, upstreams=tuple(edge for edge in table.upstreams if edge.key in between))
            for name, table in project.tables.items()
            if name in between
        },
        sources={name: source for name, source in project.sources.items() if name in between},
    )


def _gates(project: Project, state: State) -> Gates:
    gates = Gates(project)
    for node in project.nodes():
        past = state.tables[node.key]
        if isinstance(node, Table):
            gates.closed(node, past)
        none = np.zeros(past.count, np.bool_)
        gates.pass_on(node, past, ready=none, anew=none)
    return gates


def _why(project: Project, ledger: Ledger, gates: Gates, state: State, key: str, index: int) -> str:
    """Return the failed checks: "unique_orders_id (3 rows) on main/orders 2024-01-05"."""
    texts = []
    for other, number in gates.causes(state, key, index):
        partitioning = project.node(other).partitioning
        partition = Grid.of(partitioning).key(number) if partitioning else ""
        checks = ", ".join(ledger.failed_checks(project, other, partition, reader=key))
        texts.append(f"{checks} on {other}{partition and f' {partition}'}")
    return "; ".join(texts)
