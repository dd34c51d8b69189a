"""Rows of Dagster's event log as small values, parsed without importing Dagster.

The JSON is Dagster's own serialisation of an `EventLogEntry`. Every assumption about its form is held by
`tests/ledger/test_event_assumptions.py`, which goes through a real Dagster instance.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from t2.errors import StorageError

# The run's status after each event; a run counts as queued from the moment it is planned.
RUN_STATUS: Mapping[str, str] = {
    "PIPELINE_ENQUEUED": "queued",
    "PIPELINE_STARTING": "starting",
    "PIPELINE_START": "started",
    "PIPELINE_CANCELING": "canceling",
    "PIPELINE_SUCCESS": "success",
    "PIPELINE_FAILURE": "failure",
    "PIPELINE_CANCELED": "canceled",
}
ENDED = ("success", "failure", "canceled")
RUNNING = ("started", "canceling")

AS_OF = "t2/as_of"
CODE_VERSION = "t2/code_version"
ERROR = "t2/error"
FINGERPRINT = "t2/fingerprint"
FAILED = "t2/failed"
SKIPPED = "t2/skipped"
TEST = "t2/test"
DAGSTER_CODE_VERSION = "dagster/code_version"
# T2's own name, and the one that checks of dagster-dbt use.
FAILED_ROWS = ("t2/failing_rows", "dagster_dbt/failed_row_count")

TEXT_LIMIT = 4096


@dataclass(frozen=True)
class RunChanged:
    """A run has a new status."""

    id: int
    at: float
    run_id: str
    status: str


@dataclass(frozen=True)
class Planned:
    """A run is going to build a partition."""

    id: int
    at: float
    run_id: str
    table: str
    partition: str


@dataclass(frozen=True)
class CheckPlanned:
    """A run is going to evaluate a check of a table."""

    id: int
    at: float
    run_id: str
    table: str
    check: str


@dataclass(frozen=True)
class Materialized:
    """A partition was built. `as_of` is the event's own id where the builder did not say what it read.

    `fingerprint` is what a monitor saw of a source's partition, "" where somebody else reported it.
    """

    id: int
    at: float
    run_id: str
    table: str
    partition: str
    as_of: int
    code_version: str
    fingerprint: str = ""


@dataclass(frozen=True)
class Evaluated:
    """A check was evaluated on a partition; `failed_rows` is None where the test did not say.

    `test` is dbt's unique id if T2 evaluated one of its tests, "" for anybody else's check. `as_of` is the
    event's own id where it was not said.
    """

    id: int
    at: float
    run_id: str
    table: str
    partition: str
    check: str
    passed: bool
    severity: str
    blocking: bool
    description: str
    failed_rows: int | None
    test: str = ""
    as_of: int = 0

    @property
    def fails(self) -> bool:
        """Whether it failed, and is more than a warning."""
        return not self.passed and self.severity == "ERROR"

    @property
    def blocks(self) -> bool:
        """Whether this holds back everything that reads the partition."""
        return self.fails and self.blocking


@dataclass(frozen=True)
class Failed:
    """An attempt to build a partition failed. `as_of` is the event's own id where it was not said."""

    id: int
    at: float
    run_id: str
    table: str
    partition: str
    as_of: int
    code_version: str
    error: str


@dataclass(frozen=True)
class Skipped:
    """A run left a partition as it is, because something that it reads failed a check in the same run."""

    id: int
    at: float
    run_id: str
    table: str
    partition: str


Event: TypeAlias = RunChanged | Planned | CheckPlanned | Materialized | Evaluated | Failed | Skipped


def parse(event_id: int, run_id: str, kind: str, text: str) -> Event | None:
    """Parse one row of the event log; None if it tells the ledger nothing.

    Raises StorageError if the row has not the form that this version of T2 knows.
    """
    try:
        entry = json.loads(text)
        if kind in RUN_STATUS:
            return RunChanged(event_id, entry["timestamp"], run_id, RUN_STATUS[kind])
        data = entry["dagster_event"]["event_specific_data"]
        return _PARSERS[kind](event_id, entry["timestamp"], run_id, data)
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(
            f"event {event_id} ({kind}) of Dagster's event log has an unknown form: {error!r}",
            hint="check that this version of T2 supports your version of Dagster",
        ) from error


def _planned(event_id: int, at: float, run_id: str, data: Mapping[str, Any]) -> Event:
    if data["partitions_subset"] is not None:
        raise ValueError("planned as a range; unset DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS")
    return Planned(event_id, at, run_id, _key(data), data["partition"] or "")


def _check_planned(event_id: int, at: float, run_id: str, data: Mapping[str, Any]) -> Event:
    return CheckPlanned(event_id, at, run_id, _key(data), data["check_name"])


def _materialized(event_id: int, at: float, run_id: str, data: Mapping[str, Any]) -> Event:
    item = data["materialization"]
    tags = item["tags"] or {}
    metadata = _metadata(item)
    return Materialized(
        event_id,
        at,
        run_id,
        _key(item),
        item["partition"] or "",
        int(metadata.get(AS_OF, event_id)),
        tags.get(DAGSTER_CODE_VERSION, ""),
        _text(str(metadata.get(FINGERPRINT, ""))),
    )


def _evaluated(event_id: int, at: float, run_id: str, data: Mapping[str, Any]) -> Event:
    metadata = data["metadata"]
    rows = next((metadata[name] for name in FAILED_ROWS if name in metadata), None)
    return Evaluated(
        event_id,
        at,
        run_id,
        _key(data),
        data["partition"] or "",
        data["check_name"],
        data["success"],
        data["severity"]["__enum__"].rpartition(".")[2],
        bool(data["blocking"]),
        _text(data["description"] or ""),
        None if rows is None else rows["value"],
        metadata[TEST]["text"] if TEST in metadata else "",
        metadata[AS_OF]["value"] if AS_OF in metadata else event_id,
    )


def _observed(event_id: int, at: float, run_id: str, data: Mapping[str, Any]) -> Event | None:
    item = data["asset_observation"]
    tags = item["tags"] or {}
    if tags.get(SKIPPED) == "true":
        return Skipped(event_id, at, run_id, _key(item), item["partition"] or "")
    if tags.get(FAILED) != "true":
        return None
    metadata = _metadata(item)
    return Failed(
        event_id,
        at,
        run_id,
        _key(item),
        item["partition"] or "",
        int(metadata.get(AS_OF, event_id)),
        metadata.get(CODE_VERSION, ""),
        _text(metadata.get(ERROR, "")),
    )


_PARSERS: Mapping[str, Callable[[int, float, str, Mapping[str, Any]], Event | None]] = {
    "ASSET_MATERIALIZATION_PLANNED": _planned,
    "ASSET_CHECK_EVALUATION_PLANNED": _check_planned,
    "ASSET_MATERIALIZATION": _materialized,
    "ASSET_CHECK_EVALUATION": _evaluated,
    "ASSET_OBSERVATION": _observed,
}

KINDS = (*RUN_STATUS, *_PARSERS)


def _key(data: Mapping[str, Any]) -> str:
    return "/".join(data["asset_key"]["path"])


def _metadata(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of T2's own metadata: numbers and texts."""
    values = {}
    for entry in item["metadata_entries"]:
        if entry["label"] in (AS_OF, CODE_VERSION, ERROR, FINGERPRINT):
            data = entry["entry_data"]
            values[entry["label"]] = data["value"] if "value" in data else data["text"]
    return values


def _text(value: str) -> str:
    # PostgreSQL stores no NUL characters.
    return value.replace("\x00", "")[:TEXT_LIMIT]
