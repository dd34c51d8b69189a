"""What BigQuery demands of tables with `materialized: partitioned`, checked before anything runs.

The dbt package (`dbt/macros/partitioned/bigquery_plan.sql`) decides the same where dbt runs without T2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from t2.project.declared import Declared
from t2.project.layers import META
from t2.project.model import Grain, Partitioning
from t2.project.strategies import PARTITIONED, merges

ADAPTER = "bigquery"
# BigQuery's quotas: partitions that one job may change; statements that wait to change one table.
PARTITIONS_PER_JOB = 4000
OUTSTANDING = 20
GRANULARITIES = ("hour", "day", "month", "year")

WRITE = (*META, "bigquery", "write")


def check_bigquery(declared: Declared, cut: Mapping[str, Partitioning | None]) -> None:
    """Report what BigQuery cannot do, if the project's target is BigQuery."""
    if declared.manifest["metadata"]["adapter_type"] != ADAPTER:
        return
    for uid, partitioning in cut.items():
        if partitioning is None:
            continue
        _check_type(declared, uid, partitioning)
        if declared.materialized(uid) == PARTITIONED:
            _check_partition_by(declared, uid, partitioning)
            if uid not in declared.broken:
                _check_limits(declared, uid, partitioning)


def writes_in_turn(declared: Declared, uid: str, partitioning: Partitioning | None) -> bool:
    """Return whether one build of a table at a time can write on BigQuery: not if partitions are copied."""
    other = declared.manifest["metadata"]["adapter_type"] != ADAPTER
    if other or partitioning is None or uid in declared.broken:
        return False
    wanted = (declared.settings[uid].get("bigquery") or {}).get("write")
    fits = _granularity(declared, uid, partitioning) == partitioning.grain and _can_copy(
        declared, uid, partitioning
    )
    return bool(wanted == "merge" or not (wanted == "copy" or fits))


def _check_type(declared: Declared, uid: str, partitioning: Partitioning) -> None:
    """A TIMESTAMP is an instant, a DATE and a DATETIME are wall times: which one decides what a window is."""
    kind = _type(declared, uid, partitioning)
    if partitioning.timezone != "UTC" and partitioning.grain is not Grain.HOUR and not kind:
        message = f"BigQuery needs the data_type of {partitioning.event_time}, the event_time, for a timezone"
        hint = "document the column with data_type: date, datetime or timestamp"
        declared.report(uid, message, hint, (*META, "timezone"), ("event_time",))
    if partitioning.grain is Grain.HOUR and kind == "date":
        message = f"{partitioning.event_time}, the event_time, is a date: it cannot be cut by hour"
        declared.report(uid, message, "use a timestamp or a datetime", ("batch_size",))


def _check_partition_by(declared: Declared, uid: str, partitioning: Partitioning) -> None:
    given = declared.nodes[uid]["config"].get("partition_by")
    if given is not None and (not isinstance(given, Mapping) or not given.get("field")):
        hint = "partition_by: {field: day, data_type: date, granularity: day}"
        declared.report(uid, f"partition_by is {given!r}; expected a mapping", hint, ("partition_by",))
        declared.broken.add(uid)
        return
    if given and str(given.get("granularity", "day")).lower() not in GRANULARITIES:
        message = f"partition_by.granularity is {given['granularity']!r}; it can be hour, day, month, year"
        declared.report(uid, message, "weeks are made up of days", ("partition_by",))
        declared.broken.add(uid)
        return
    if given and given.get("time_ingestion_partitioning"):
        message = "partition_by.time_ingestion_partitioning cuts by the time of writing, not by event_time"
        declared.report(uid, message, "remove it", ("partition_by",))
    if (declared.settings[uid].get("bigquery") or {}).get("write") != "copy":
        return
    if merges(declared, uid):
        message = "meta.t2.bigquery.write is 'copy'; a merge by unique_key is a statement"
        declared.report(uid, message, "remove it", WRITE)
    elif not _can_copy(declared, uid, partitioning):
        message = (
            f"meta.t2.bigquery.write is 'copy', but BigQuery's partitions of this table do not make up "
            f"those by {partitioning.grain.value} of {partitioning.event_time} ({partitioning.timezone})"
        )
        hint = "change partition_by, or remove bigquery.write: the table is then written by merge"
        declared.report(uid, message, hint, WRITE)


def _check_limits(declared: Declared, uid: str, partitioning: Partitioning) -> None:
    wanted = declared.settings[uid].get("backfill") or {}
    each = _partitions_of_one(_granularity(declared, uid, partitioning), partitioning.grain)
    most = PARTITIONS_PER_JOB // each
    if wanted.get("partitions_per_run", 1) > most:
        message = f"BigQuery changes at most {PARTITIONS_PER_JOB} of its partitions in one job"
        hint = f"meta.t2.backfill.partitions_per_run can be {most} here"
        declared.report(uid, message, hint, (*META, "backfill", "partitions_per_run"))
    if wanted.get("concurrency", 1) > OUTSTANDING and writes_in_turn(declared, uid, partitioning):
        message = f"BigQuery refuses more than {OUTSTANDING} outstanding statements that change one table"
        hint = f"meta.t2.backfill.concurrency can be {OUTSTANDING}; more than 1 gains little here"
        declared.report(uid, message, hint, (*META, "backfill", "concurrency"))
    known = declared.settings[uid].get("bigquery") or {}
    seen = ((declared.nodes[uid]["config"].get("meta") or {}).get("t2") or {}).get("bigquery") or {}
    if any(seen.get(name) != value for name, value in known.items()):
        message = "meta.t2.bigquery of a folder is hidden from dbt by the model's own meta.t2"
        declared.report(uid, message, "write it where the model's meta.t2 is", WRITE)


def _can_copy(declared: Declared, uid: str, partitioning: Partitioning) -> bool:
    """Return whether a table's partitions in BigQuery make up those of T2."""
    given = declared.nodes[uid]["config"].get("partition_by") or {}
    granularity = _granularity(declared, uid, partitioning)
    return (
        not merges(declared, uid)
        and _by_event_time(given, partitioning)
        and granularity is not None
        and granularity.rank <= partitioning.grain.rank
        and (partitioning.timezone == "UTC" or _type(declared, uid, partitioning) != "timestamp")
    )


def _by_event_time(given: Mapping[str, Any], partitioning: Partitioning) -> bool:
    if str(given.get("data_type")).lower() == "int64":
        return False
    return str(given.get("field", partitioning.event_time)).lower() == partitioning.event_time.lower()


def _granularity(declared: Declared, uid: str, partitioning: Partitioning) -> Grain | None:
    """Return what BigQuery's partitions of the table are: as declared, else like T2's, of weeks the days."""
    given = declared.nodes[uid]["config"].get("partition_by")
    if not given:
        return Grain.DAY if partitioning.grain is Grain.WEEK else partitioning.grain
    if not _by_event_time(given, partitioning):
        return None
    return Grain(str(given.get("granularity", "day")).lower())


def _partitions_of_one(granularity: Grain | None, grain: Grain) -> int:
    """Return how many of BigQuery's partitions one of T2 has at most."""
    if granularity is None or granularity.rank >= grain.rank:
        return 1
    hours = {Grain.HOUR: 1, Grain.DAY: 25, Grain.WEEK: 7 * 24 + 1, Grain.MONTH: 31 * 24 + 1, Grain.YEAR: 8785}
    days = {Grain.DAY: 1, Grain.WEEK: 7, Grain.MONTH: 31, Grain.YEAR: 366}
    if granularity is Grain.HOUR:
        return hours[grain]
    return days[grain] if granularity is Grain.DAY else 12


def _type(declared: Declared, uid: str, partitioning: Partitioning) -> str:
    """Return the documented type of the event time, in lower case; "" if there is none."""
    for column in (declared.nodes[uid].get("columns") or {}).values():
        if column["name"].lower() == partitioning.event_time.lower():
            return str(column.get("data_type") or "").lower()
    return ""
