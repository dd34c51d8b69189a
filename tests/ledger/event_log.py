"""An event log as Dagster would have written it, without Dagster.

`test_event_assumptions.py` holds that what is written here is what Dagster writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from dagster._core.storage.event_log.schema import SqlEventLogStorageMetadata
from sqlalchemy.engine import Engine

from t2.ledger import ledger as ledgers
from t2.ledger.events import (
    RUN_STATUS,
    CheckPlanned,
    Evaluated,
    Event,
    Failed,
    Materialized,
    Planned,
    RunChanged,
    Skipped,
)
from t2.ledger.schema import DERIVED

KIND = {
    Planned: "ASSET_MATERIALIZATION_PLANNED",
    CheckPlanned: "ASSET_CHECK_EVALUATION_PLANNED",
    Materialized: "ASSET_MATERIALIZATION",
    Evaluated: "ASSET_CHECK_EVALUATION",
    Failed: "ASSET_OBSERVATION",
    Skipped: "ASSET_OBSERVATION",
}
STATUS_KIND = {status: kind for kind, status in RUN_STATUS.items()}

INSERT = sa.text(
    "INSERT INTO event_logs (id, run_id, event, dagster_event_type, timestamp, asset_key, partition)"
    " VALUES (:id, :run_id, :event, :kind, :timestamp, :asset_key, :partition)"
)


def create_log(url: str) -> Engine:
    """Create Dagster's tables, empty."""
    engine = sa.create_engine(url)
    tables = [SqlEventLogStorageMetadata.tables[name] for name in ("event_logs", "asset_keys")]
    SqlEventLogStorageMetadata.create_all(engine, tables)
    return engine


def write(engine: Engine, events: Iterable[Event]) -> None:
    rows = [row_of(event) for event in events]
    if rows:
        with engine.begin() as connection:
            connection.execute(INSERT, rows)


def row_of(event: Event) -> dict[str, Any]:
    kind = STATUS_KIND[event.status] if isinstance(event, RunChanged) else KIND[type(event)]
    data = {} if isinstance(event, RunChanged) else {"event_specific_data": data_of(event)}
    entry = {
        "dagster_event": {**data, "event_type_value": kind},
        "run_id": event.run_id,
        "timestamp": event.at,
    }
    # Dagster fills these two columns for materializations, observations and plans only.
    keyed = isinstance(event, Planned | Materialized | Failed | Skipped)
    return {
        "id": event.id,
        "run_id": event.run_id,
        "event": json.dumps(entry),
        "kind": kind,
        "timestamp": datetime.fromtimestamp(event.at, timezone.utc).replace(tzinfo=None),
        "asset_key": json.dumps(event.table.split("/")) if keyed else None,
        "partition": (event.partition or None) if keyed else None,
    }


def data_of(event: Planned | CheckPlanned | Materialized | Evaluated | Failed | Skipped) -> dict[str, Any]:
    key = {"path": event.table.split("/")}
    if isinstance(event, Planned):
        return {"asset_key": key, "partition": event.partition or None, "partitions_subset": None}
    if isinstance(event, CheckPlanned):
        return {"asset_key": key, "check_name": event.check}
    if isinstance(event, Evaluated):
        metadata: dict[str, Any] = {}
        if event.failed_rows is not None:
            metadata["dagster_dbt/failed_row_count"] = {"value": event.failed_rows}
        if event.test:
            metadata["t2/test"] = {"text": event.test}
        if event.as_of not in (0, event.id):
            metadata["t2/as_of"] = {"value": event.as_of}
        return {
            "asset_key": key,
            "blocking": event.blocking,
            "check_name": event.check,
            "description": event.description or None,
            "metadata": metadata,
            "partition": event.partition or None,
            "severity": {"__enum__": f"AssetCheckSeverity.{event.severity}"},
            "success": event.passed,
        }
    if isinstance(event, Skipped):
        skipped = {"asset_key": key, "partition": event.partition or None, "tags": {"t2/skipped": "true"}}
        return {"asset_observation": {**skipped, "metadata_entries": []}}
    item: dict[str, Any] = {"asset_key": key, "partition": event.partition or None}
    if isinstance(event, Materialized):
        item["tags"] = {"dagster/code_version": event.code_version} if event.code_version else {}
        item["metadata_entries"] = [_number("t2/as_of", event.as_of)] if event.as_of != event.id else []
        if event.fingerprint:
            item["metadata_entries"].append(_text("t2/fingerprint", event.fingerprint))
        return {"materialization": item}
    item["tags"] = {"t2/failed": "true"}
    item["metadata_entries"] = [
        _text("t2/error", event.error),
        _number("t2/as_of", event.as_of),
        _text("t2/code_version", event.code_version),
    ]
    return {"asset_observation": item}


def _number(label: str, value: int) -> dict[str, Any]:
    return {"entry_data": {"__class__": "IntMetadataEntryData", "value": value}, "label": label}


def _text(label: str, text: str) -> dict[str, Any]:
    return {"entry_data": {"__class__": "TextMetadataEntryData", "text": text}, "label": label}


def content(ledger: ledgers.Ledger) -> dict[str, Sequence[tuple[Any, ...]]]:
    """Return all that the ledger knows, table by table."""
    with ledger.engine.begin() as connection:
        return {
            table.name: [
                tuple(row) for row in connection.execute(table.select().order_by(*table.primary_key))
            ]
            for table in DERIVED
        }
