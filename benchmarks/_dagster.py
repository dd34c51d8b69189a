"""Everything private of Dagster that the benchmarks need.

What `import dagster` does not load by itself is imported inside functions: the load benchmark must not
pay for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import datetime

import dagster as dg
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import serialize_value


def repository_snapshot(defs: dg.Definitions) -> str:
    """Return what a code server answers when it is asked for its repository, as it does at start."""
    return serialize_value(RepositorySnap.from_def(defs.get_repository_def(), defer_snapshots=True))


def add_backfill(
    instance: dg.DagsterInstance, defs: dg.Definitions, keys: Sequence[dg.AssetKey], partitions: Sequence[str]
) -> str:
    """Start a backfill of the first asset's partitions and what reads them, as Dagster's page does."""
    from dagster._core.execution.backfill import PartitionBackfill
    from dagster._core.test_utils import mock_workspace_from_repos

    backfill = PartitionBackfill.from_asset_partitions(
        backfill_id="measured",
        asset_graph=mock_workspace_from_repos([defs.get_repository_def()]).asset_graph,
        partition_names=partitions,
        asset_selection=keys,
        backfill_timestamp=time.time(),
        tags={},
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=None,
        description=None,
        run_config=None,
    )
    instance.add_backfill(backfill)
    return backfill.backfill_id


def has_succeeded(instance: dg.DagsterInstance, backfill_id: str) -> bool:
    """Whether a backfill is over; RuntimeError if it failed."""
    from dagster._core.execution.backfill import BulkActionStatus

    backfill = instance.get_backfill(backfill_id)
    status = backfill.status if backfill else None
    if status not in (BulkActionStatus.REQUESTED, BulkActionStatus.COMPLETED_SUCCESS):
        raise RuntimeError(f"the backfill {backfill_id} is {status}: {backfill and backfill.error}")
    return status is BulkActionStatus.COMPLETED_SUCCESS


class Automation:
    """Declarative automation over a code location, tick by tick, as the daemon runs it."""

    def __init__(self, defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
        from dagster._core.definitions.asset_daemon_cursor import AssetDaemonCursor
        from dagster._core.test_utils import mock_workspace_from_repos
        from dagster._daemon import asset_daemon

        self._read = asset_daemon.asset_daemon_cursor_from_instigator_serialized_cursor
        self._write = asset_daemon.asset_daemon_cursor_to_instigator_serialized_cursor
        self.graph = mock_workspace_from_repos([defs.get_repository_def()]).asset_graph
        self.instance = instance
        self.cursor = self._write(AssetDaemonCursor.empty())

    def tick(self, now: datetime) -> int:
        """Read the cursor, evaluate all conditions, write the cursor; return the number of run requests."""
        from dagster._core.definitions import automation_tick_evaluation_context as evaluation

        cursor = self._read(self.cursor, self.graph)
        context = evaluation.AutomationTickEvaluationContext(
            evaluation_id=cursor.evaluation_id + 1,
            instance=self.instance,
            asset_graph=self.graph,
            cursor=cursor,
            materialize_run_tags={},
            observe_run_tags={},
            auto_observe_asset_keys=set(),
            asset_selection=dg.AssetSelection.all(include_sources=True),
            logger=logging.getLogger(__name__),
            emit_backfills=True,
            evaluation_time=now,
        )
        requests, new_cursor, _ = asyncio.run(context.async_evaluate())
        self.cursor = self._write(new_cursor)
        return len(requests)

    def land_everything(self) -> None:
        """Record that every partition whose window is over is there.

        One event an asset, for its newest partition; the older ones go straight to where Dagster remembers
        what it has counted already. Millions of events would say the same to a tick.
        """
        for key in self.graph.toposorted_asset_keys:
            partitions = self.graph.get(key).partitions_def
            newest = partitions.get_last_partition_key() if partitions else None
            self.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=newest))
            if partitions:
                self._remember(key, partitions)

    def _remember(self, key: dg.AssetKey, partitions: dg.PartitionsDefinition) -> None:
        from dagster._core.storage.partition_status_cache import AssetStatusCacheValue

        record = self.instance.get_asset_records([key])[0]
        every = partitions.empty_subset().with_partition_keys(partitions.get_partition_keys())
        self.instance.event_log_storage.update_asset_cached_status_data(
            key,
            AssetStatusCacheValue(
                latest_storage_id=record.asset_entry.last_materialization_storage_id,
                partitions_def_id=partitions.get_serializable_unique_identifier(),
                serialized_materialized_partition_subset=every.serialize(),
            ),
        )
