"""The table in which Dagster keeps the evaluations of its conditions; SQLite and PostgreSQL.

Loading a code location does without this module, which imports the schemas of Dagster's storages (0.3 s).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.schedules.schema import AssetDaemonAssetEvaluationsTable
from dagster._core.storage.tags import TICK_ID_TAG
from dagster._serdes import serialize_value
from sqlalchemy.dialects import postgresql, sqlite

from t2.definitions._dagster.automation import Evaluation

TABLE = AssetDaemonAssetEvaluationsTable
ROWS = TABLE.c


class EvaluationStore:
    """The evaluations that Dagster keeps of its conditions."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._storage: Any = instance.schedule_storage

    def is_there(self) -> bool:
        """Whether the instance's database can hold evaluations."""
        return self._storage is not None and bool(self._storage.supports_auto_materialize_asset_evaluations)

    def put(self, tick: int, evaluations: Sequence[Evaluation]) -> None:
        """Store evaluations of a tick in one transaction, with the runs that the tick asked for.

        They replace those of the same assets and tick. Dagster's own method does the same on SQLite with a
        statement a row, which takes twice as long.
        """
        if not evaluations:
            return
        asked = any(evaluation.true_subset.size for evaluation in evaluations)
        runs = self._runs(tick) if asked else {}
        with self._storage.connect() as connection:
            connection.execute(_upsert(connection), [_row(tick, one, runs) for one in evaluations])

    def marks(self, keys: Iterable[dg.AssetKey]) -> Iterator[tuple[dg.AssetKey, str]]:
        """Yield the mark of the root of each asset's newest evaluation: a look-up in an index each."""
        newest = sa.select(ROWS.asset_evaluation_body).where(ROWS.asset_key == sa.bindparam("key"))
        newest = newest.order_by(ROWS.evaluation_id.desc()).limit(1)
        with self._storage.connect() as connection:
            for asset in keys:
                body = connection.execute(newest, {"key": asset.to_db_string()}).scalar()
                if body:
                    yield asset, json.loads(body)["evaluation"]["condition_snapshot"]["unique_id"]

    def purge(self, before: float) -> None:
        """Delete the evaluations that are older than an instant, in epoch seconds."""
        self._storage.purge_asset_evaluations(before)

    def _runs(self, tick: int) -> dict[dg.AssetKey, set[str]]:
        found: dict[dg.AssetKey, set[str]] = {}
        for run in self._instance.get_runs(dg.RunsFilter(tags={TICK_ID_TAG: str(tick)})):
            for key in run.asset_selection or ():
                found.setdefault(key, set()).add(run.run_id)
        return found


def _upsert(connection: sa.Connection) -> sqlite.Insert | postgresql.Insert:
    is_postgres = connection.dialect.name == "postgresql"
    insert = postgresql.insert(TABLE) if is_postgres else sqlite.insert(TABLE)
    return insert.on_conflict_do_update(
        index_elements=[ROWS.asset_key, ROWS.evaluation_id],
        set_={name: insert.excluded[name] for name in ("asset_evaluation_body", "num_requested")},
    )


def _row(tick: int, evaluation: Evaluation, runs: Mapping[dg.AssetKey, set[str]]) -> dict[str, Any]:
    requested = evaluation.true_subset.size
    launched = runs.get(evaluation.key, set()) if requested else set()
    return {
        "evaluation_id": tick,
        "asset_key": evaluation.key.to_db_string(),
        "asset_evaluation_body": serialize_value(evaluation.with_run_ids(launched)),
        "num_requested": requested,
    }
