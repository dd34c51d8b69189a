"""How each table and source is cut into partitions, from dbt's configuration and `meta.t2`."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any
from zoneinfo import ZoneInfo

from t2.project.config import BEGIN, GRAINS, grain, wall_time
from t2.project.declared import Declared
from t2.project.layers import META
from t2.project.model import Grain, Partitioning, floor

WHOLE = ("table", "materialized_view", "seed", "snapshot")


def partitionings(declared: Declared, now: datetime) -> dict[str, Partitioning | None]:
    """Return each node's partitioning by unique id; problems are reported and leave None."""
    found = {}
    for uid in declared.nodes:
        before = len(declared.problems)
        found[uid] = None if declared.is_transparent(uid) else _partitioning(declared, uid, now)
        if len(declared.problems) > before:
            declared.broken.add(uid)
    return found


def event_time(declared: Declared, uid: str) -> str | None:
    """Return the event time column that the author named, if any."""
    value = declared.nodes[uid]["config"].get("event_time")
    return value if isinstance(value, str) and value else None


def _partitioning(declared: Declared, uid: str, now: datetime) -> Partitioning | None:
    size = _grain(declared, uid)
    if size is None or uid in declared.broken or not _can_be_partitioned(declared, uid, size):
        return None
    zone = "UTC" if size is Grain.HOUR else declared.settings[uid].get("timezone", "UTC")
    column = event_time(declared, uid)
    if column is None:
        _missing(declared, uid, "event_time", "name the column that holds the time of each row under config")
    begin = _begin(declared, uid, size, zone, now)
    if not begin or not column:
        return None
    is_open = bool(declared.settings[uid].get("open"))
    return Partitioning(size, begin, column, zone, _end(declared, uid, size, zone, begin), is_open)


def _grain(declared: Declared, uid: str) -> Grain | None:
    size: Grain | None = declared.settings[uid].get("batch_size")
    value = declared.nodes[uid]["config"].get("batch_size")
    if size is not None or value is None or declared.is_source(uid):
        return size
    try:
        return grain(value)
    except ValueError:
        declared.report(uid, f"batch_size is {value!r}; expected {GRAINS}", None, ("batch_size",))
        return None


def _can_be_partitioned(declared: Declared, uid: str, size: Grain) -> bool:
    materialized, config = declared.materialized(uid), declared.nodes[uid]["config"]
    message = hint = None
    if materialized in WHOLE:
        message = f"a {materialized} is built as a whole, so it has no batch_size"
        hint = "use materialized: partitioned, or remove batch_size"
    elif declared.settings[uid].get("static"):
        message, hint = "a static source has no batch_size", "remove one of the two"
    elif config.get("incremental_strategy") == "microbatch":
        zone = declared.settings[uid].get("timezone", "UTC")
        if size is Grain.WEEK or (size is not Grain.HOUR and zone != "UTC"):
            message = "dbt's microbatch cuts hours, days, months and years of UTC only"
            hint = "use materialized: partitioned for weeks and other time zones"
    if message:
        declared.report(uid, message, hint, (*META, "batch_size"), ("batch_size",))
    return message is None


def _begin(declared: Declared, uid: str, size: Grain, zone: str, now: datetime) -> datetime | None:
    value: Any = declared.settings[uid].get("begin")
    if value is None and not declared.is_source(uid):
        value = declared.nodes[uid]["config"].get("begin")
    if value is None:
        place = "under meta.t2" if declared.is_source(uid) else "under config"
        _missing(declared, uid, "begin", f"write the first {size.value}, such as begin: 2013-01-01, {place}")
        return None
    try:
        begin = _in_zone(wall_time(value), zone)
    except ValueError:
        declared.report(uid, f"begin is {value!r}; expected {BEGIN.expects}", None, ("begin",))
        return None
    if begin > now.astimezone(ZoneInfo(zone)).replace(tzinfo=None):
        hint = f"it is {now.astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC now"
        declared.report(
            uid, f"begin is in the future: {begin.isoformat(' ')}", hint, (*META, "begin"), ("begin",)
        )
        return None
    return floor(size, begin)


def _end(declared: Declared, uid: str, size: Grain, zone: str, begin: datetime) -> datetime | None:
    value: Any = declared.settings[uid].get("end")
    if value is None:
        return None
    end = _in_zone(wall_time(value), zone)
    if end <= begin:
        message = f"end is not after begin: {end.isoformat(' ')}"
        declared.report(uid, message, f"begin is {begin.isoformat(' ')}", (*META, "end"))
    return floor(size, end)


def _in_zone(begin: datetime, zone: str) -> datetime:
    return begin.astimezone(ZoneInfo(zone)).replace(tzinfo=None) if begin.tzinfo else begin


def _missing(declared: Declared, uid: str, name: str, hint: str) -> None:
    message = f"{declared.label(uid)} has a batch_size but no {name}"
    declared.report(uid, message, hint, (*META, "batch_size"), ("batch_size",))
