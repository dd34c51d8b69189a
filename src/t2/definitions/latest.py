"""Which partitions a table reads of upstreams of which only the latest is read: the newest landed ones.

The planner asks by the same rule; what landed between its look and the run is read too, and counts as seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import dagster as dg

from t2.ledger.ledger import Ledger
from t2.ledger.storage import locate
from t2.planning.grid import Grid
from t2.planning.inputs import window_of
from t2.project.model import Project, Table

Key = str | None


def latest(
    project: Project, instance: dg.DagsterInstance, table: Table, keys: Sequence[Key], now: datetime
) -> dict[Key, dict[str, str | None]]:
    """Return, by partition of a table, the partition that it reads of each such upstream; None: none."""
    edges = [upstream for upstream in table.upstreams if upstream.window == "latest"]
    if not edges or instance.is_ephemeral:
        return {}
    read = {upstream.key for upstream in edges}
    part = replace(
        project,
        tables={key: node for key, node in project.tables.items() if key in read},
        sources={key: node for key, node in project.sources.items() if key in read},
    )
    ledger = Ledger(locate(Path(instance.root_directory)))
    try:
        ledger.follow()
        state = ledger.state(part, now)
    finally:
        ledger.engine.dispose()
    own = Grid.of(table.partitioning) if table.partitioning else None
    numbers = {key: own.index(key) if own and key else 0 for key in keys}
    found: dict[Key, dict[str, str | None]] = {key: {} for key in keys}
    for upstream in edges:
        partitioning = project.node(upstream.key).partitioning
        assert partitioning is not None
        count = max(numbers.values()) + 1
        low, high = window_of(project, table, upstream, state.tables[upstream.key], count)
        for key, index in numbers.items():
            there = low[index] < high[index]
            found[key][upstream.key] = Grid.of(partitioning).key(int(low[index])) if there else None
    return found
