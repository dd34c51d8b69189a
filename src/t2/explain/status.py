"""The state of every table in one row: what `t2 status` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

import numpy as np

from t2.planning.grid import Grid
from t2.planning.planner import Plan
from t2.planning.verdict import Outcome
from t2.project.model import Source, Table

# Which outcome stands for a table whose partitions differ: the one that a reader has to know first.
URGENCY = (
    Outcome.FAILED,
    Outcome.BLOCKED,
    Outcome.RUNNING,
    Outcome.QUEUED,
    Outcome.RETRYING,
    Outcome.READY,
    Outcome.HELD,
    Outcome.WAITING,
    Outcome.PAUSED,
    Outcome.SCHEDULED,
    Outcome.MANUAL,
    Outcome.NOT_DUE,
    Outcome.LANDED,
)


@dataclass(frozen=True)
class TableStatus:
    """One table or source: `landed` of `due` partitions; `newest` is the newest landed partition's key.

    `outcomes` counts partitions by outcome; a source's missing partitions are `waiting`.
    """

    table: str
    kind: str
    grain: str
    outcome: str
    landed: int
    due: int
    newest: str | None
    newest_landed_at: str | None
    outcomes: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the row as the API and `--format json` give it."""
        return asdict(self)


def status(plan: Plan) -> list[TableStatus]:
    """Return one row a source and table, sources first, then in dependency order."""
    return [_row(plan, node) for node in plan.project.nodes()]


def _row(plan: Plan, node: Table | Source) -> TableStatus:
    past = plan.state.tables[node.key]
    outcomes = plan.outcomes[node.key] if isinstance(node, Table) else _of_source(past.landed)
    counts = {outcome: int((outcomes == outcome).sum()) for outcome in URGENCY}
    counts = {outcome: count for outcome, count in counts.items() if count}
    landed = np.flatnonzero(past.landed)
    newest = int(landed[-1]) if len(landed) else None
    grid = Grid.of(node.partitioning) if node.partitioning else None
    at = (
        float(np.nanmax(past.landed_at))
        if newest is not None and not np.isnan(past.landed_at).all()
        else None
    )
    return TableStatus(
        table=node.key,
        kind="source" if isinstance(node, Source) else node.materialized,
        grain=node.partitioning.grain.value if node.partitioning else "-",
        outcome=next(iter(counts), Outcome.NOT_DUE).label,
        landed=len(landed),
        due=past.count,
        newest=(grid.key(newest) if grid else "whole") if newest is not None else None,
        newest_landed_at=datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="seconds")
        if at
        else None,
        outcomes={outcome.label: count for outcome, count in counts.items()},
    )


def _of_source(landed: np.ndarray[Any, np.dtype[np.bool_]]) -> np.ndarray[Any, np.dtype[np.int8]]:
    return np.where(landed, np.int8(Outcome.LANDED), np.int8(Outcome.WAITING))
