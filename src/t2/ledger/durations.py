"""How long recent builds of a table took, read from Dagster's event log, and how long others will take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from t2.ledger.schema import event_logs, partitions, runs, targets
from t2.planning.forecast import Habits
from t2.planning.grid import Grid
from t2.planning.preview import Part
from t2.planning.state import State
from t2.project.model import Project, Table

RECENT = 50
_METADATA = ("t2/execution_seconds", "t2/partitions_built_together", "t2/rows_affected")


@dataclass(frozen=True)
class Pace:
    """Medians over the recent builds of a table; None where nothing is known.

    `seconds`, `rows`, `bytes`: of one partition (bytes where the warehouse tells what it processed).
    `run_seconds`: what a run takes besides building this table, by its number of tables.
    """

    seconds: float | None = None
    rows: float | None = None
    bytes: float | None = None
    run_seconds: float = 0.0


def seconds_alone(table: Table, part: Part, pace: Pace) -> float | None:
    """Estimate what a table's part of a backfill takes by itself."""
    if pace.seconds is None:
        return None
    return (part.partitions * pace.seconds + part.runs * pace.run_seconds) / table.runs_at_once


def seconds_in_all(
    project: Project, parts: Sequence[Part], paces: Mapping[str, Pace], slots: int
) -> float | None:
    """Estimate what all parts take: as long as the slowest, or as all of them in so many slots for runs."""
    each = []
    for part in parts:
        table = project.tables[part.table]
        if part.partitions:
            each.append((table.runs_at_once, seconds_alone(table, part, paces[part.table])))
    known = [(runs, seconds) for runs, seconds in each if seconds is not None]
    if not each or len(known) < len(each):
        return None
    return max(*(seconds for _, seconds in known), sum(runs * seconds for runs, seconds in known) / slots)


def habits(paces: Mapping[str, Pace], project: Project, state: State) -> Habits:
    """Return what a forecast goes by: recent builds, and how late sources landed of late."""
    build = {key: found.seconds for key, found in paces.items() if found.seconds is not None}
    starts = [found.run_seconds for found in paces.values() if found.run_seconds]
    lateness = {}
    for key, source in project.sources.items():
        past = state.tables[key]
        recent = np.flatnonzero(past.landed_id)[-RECENT:]
        if source.partitioning is not None and len(recent):
            ends = Grid.of(source.partitioning).boundaries(past.count)[1:]
            lateness[key] = max(float(np.median(past.landed_at[recent] - ends[recent])), 0.0)
    return Habits(
        build=build,
        start=median(starts) if starts else 1.0,
        lateness=lateness,
        other=median(build.values()) if build else 1.0,
    )


def pace(connection: Connection, table: str) -> Pace:
    """Return the pace of a table's recent builds."""
    newest = (
        sa.select(partitions.c.event_id, partitions.c.run_id)
        .where(partitions.c.table_key == table, partitions.c.run_id != "")
        .order_by(partitions.c.event_id.desc())
        .limit(RECENT)
    )
    run_of: dict[int, str] = {row.event_id: row.run_id for row in connection.execute(newest)}
    if not run_of:
        return Pace()
    rows = connection.execute(
        sa.select(event_logs.c.id, event_logs.c.event).where(event_logs.c.id.in_(list(run_of)))
    )
    # One statement builds several partitions, and each of their events tells of all of it.
    builds = {
        (run_of[event_id], found["t2/execution_seconds"]): found
        for event_id, event in rows
        if "t2/execution_seconds" in (found := _metadata(event))
    }
    if not builds:
        return Pace()
    each = [(found, found.get("t2/partitions_built_together", 1)) for found in builds.values()]
    return Pace(
        seconds=median(found["t2/execution_seconds"] / count for found, count in each),
        rows=_median(
            [found["t2/rows_affected"] / count for found, count in each if "t2/rows_affected" in found]
        ),
        bytes=_median([found["bytes"] / count for found, count in each if "bytes" in found]),
        run_seconds=_besides(connection, builds),
    )


def _median(values: list[float]) -> float | None:
    return median(values) if values else None


def _besides(connection: Connection, builds: Mapping[tuple[str, float], Any]) -> float:
    built: dict[str, float] = {}
    for run_id, seconds in builds:
        built[run_id] = built.get(run_id, 0.0) + seconds
    query = (
        sa.select(
            runs.c.run_id,
            runs.c.ended_at - runs.c.started_at,
            sa.func.count(sa.distinct(targets.c.table_key)),
        )
        .join(targets, targets.c.run_id == runs.c.run_id)
        .where(runs.c.run_id.in_(list(built)), runs.c.started_at > 0, runs.c.ended_at > 0)
        .group_by(runs.c.run_id, runs.c.ended_at, runs.c.started_at)
    )
    found = [max(wall / tables - built[run_id], 0.0) for run_id, wall, tables in connection.execute(query)]
    return median(found) if found else 0.0


def _metadata(event: str) -> dict[str, Any]:
    """Return what a materialization says of how it was built."""
    data = json.loads(event)["dagster_event"]["event_specific_data"]
    found: dict[str, Any] = {}
    for entry in data["materialization"]["metadata_entries"]:
        value = entry["entry_data"].get("value", entry["entry_data"].get("data"))
        if entry["label"] in _METADATA and value is not None:
            found[entry["label"]] = value
        if entry["label"] == "t2/adapter_response" and isinstance(value, dict):
            processed = value.get("bytes_processed", {"value": None})
            size = processed.get("value") if isinstance(processed, dict) else processed
            if isinstance(size, int | float):
                found["bytes"] = size
    return found
