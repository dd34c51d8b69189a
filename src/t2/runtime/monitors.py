"""Looking at source tables: which of their partitions have landed, and a fingerprint that changes with them.

A partition has landed when the newest event time of the source has passed its end plus the grace; partitions
without rows then land empty. One query a look, bounded to the newer partitions by `since`; the type of an
event time column that the project does not document is asked for before.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from t2.errors import DbtError
from t2.planning.grid import Grid
from t2.project.model import Grain, Source
from t2.runtime.warm import Warm
from t2.runtime.windows import WALL_FORMAT

Landed = dict[str | None, str]

MISSING = ("does not exist", "No files found", "Not found: Table")


def look(warm: Warm, source: Source, *, now: datetime, since: int | None = None) -> Landed:
    """Return the fingerprints of the partitions that have landed, by key; None is the key of a static source.

    `since` is the number of the first partition to look at. A table that does not exist has nothing landed;
    DbtError, with the database's message, for anything else that goes wrong.
    """
    try:
        if source.monitor.sql is not None:
            return _asked(warm, source, now, since or 0)
        if source.partitioning is None:
            return _whole(warm, source)
        return _partitions(warm, source, now, since or 0)
    except DbtError as error:
        if any(word in error.message for word in MISSING) and not warm.call(
            "monitor_exists", unique_id=source.unique_id
        ):
            return {}
        raise DbtError(error.message, where=source.key, hint=error.hint) from error


def _partitions(warm: Warm, source: Source, now: datetime, since: int) -> Landed:
    assert source.partitioning is not None
    grid = Grid.of(source.partitioning)
    zone = "UTC" if grid.grain is Grain.HOUR else grid.timezone
    query = warm.call(
        "monitor_query",
        unique_id=source.unique_id,
        column=source.partitioning.event_time,
        type=_type(warm, source, source.partitioning.event_time),
        grain=grid.grain.value,
        zone=zone,
        since=grid.local(grid.window(since)[0]).strftime(WALL_FORMAT),
        loaded_at=source.loaded_at,
    )
    rows = {_index(grid, row["t2_partition"]): row for row in warm.query(query)}
    if not rows:
        return {}
    newest = max(row["t2_newest"] for row in rows.values()) - timedelta(seconds=source.monitor.grace_seconds)
    count = min(grid.at(newest.replace(tzinfo=ZoneInfo(zone))), grid.count(now))
    return {
        grid.key(index): _fingerprint(rows[index]) if index in rows else "0" for index in range(since, count)
    }


def _whole(warm: Warm, source: Source) -> Landed:
    loaded = f"max({source.loaded_at})" if source.loaded_at else "null"
    row = warm.query(f"select count(*) as t2_rows, {loaded} as t2_loaded from {source.relation}")[0]
    return {None: _fingerprint(row)} if row["t2_rows"] else {}


def _asked(warm: Warm, source: Source, now: datetime, since: int) -> Landed:
    """Return what the author's own query says has landed."""
    rows = warm.query(str(source.monitor.sql).strip().rstrip(";"))
    if rows and "partition" not in rows[0]:
        raise DbtError(
            f"the monitor's query has no column partition, only {', '.join(rows[0])}",
            hint="select the start of each landed partition as partition",
        )
    landed = {row["partition"]: str(row.get("fingerprint", "landed")) for row in rows}
    if source.partitioning is None:
        return {None: " ".join(landed.values())} if landed else {}
    grid = Grid.of(source.partitioning)
    indices = {_index(grid, value): fingerprint for value, fingerprint in landed.items()}
    count = grid.count(now)
    return {
        grid.key(index): fingerprint
        for index, fingerprint in sorted(indices.items())
        if max(since, 0) <= index < count
    }


def _type(warm: Warm, source: Source, column: str) -> str:
    """Return the column's type: as documented, else as the warehouse has it now."""
    for documented in source.columns:
        if documented.name == column and documented.data_type:
            return documented.data_type.lower()
    found = warm.call("monitor_type", unique_id=source.unique_id, column=column)
    if not found:
        raise DbtError(f"relation {source.relation} does not exist or has no column {column}")
    return str(found)


def _index(grid: Grid, value: Any) -> int:
    """Return the number of the partition that a date, time or key lies in; negative before the first."""
    if isinstance(value, str):
        index = int(grid.indices([value])[0])
        if index >= 0:
            return index
        value = datetime.fromisoformat(value)
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, datetime.min.time())
    if value.tzinfo is None:
        value = value.replace(tzinfo=ZoneInfo("UTC" if grid.grain is Grain.HOUR else grid.timezone))
    return grid.at(value)


def _fingerprint(row: dict[str, Any]) -> str:
    loaded = row["t2_loaded"]
    text = loaded.isoformat() if isinstance(loaded, date) else str(loaded)
    return str(row["t2_rows"]) if loaded is None else f"{row['t2_rows']} rows, loaded {text}"
