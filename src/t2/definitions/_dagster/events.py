"""What a step reports to Dagster's event log, and what it reads from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluation,
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster._core.definitions.data_version import compute_logical_data_version
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
from dagster._core.events import AssetMaterializationPlannedData, DagsterEvent, StepMaterializationData
from dagster._core.execution.plan.execute_step import _build_data_version_tags, _get_input_provenance_data

from t2.definitions._dagster.tags import RESUME_RETRY_TAG, RETRY_NUMBER_TAG

__all__ = [
    "AssetCheckEvaluation",
    "check_targets",
    "events_of_ancestors",
    "head",
    "is_retry",
    "output_name",
    "report_planned",
    "silent_output",
    "version_tags",
]


def silent_output(name: str) -> dg.Output[None]:
    """Return an output that lets dependent steps start and records no materialization.

    Dagster gives the same mark to the outputs of source assets that observe themselves.
    """
    return dg.Output(None, name, metadata={SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True})


def output_name(assets_def: dg.AssetsDefinition, key: Any) -> str:
    """Return the name of the output of an asset key or asset check key."""
    return str(assets_def.output_names_by_entity_key[key])


def head(instance: dg.DagsterInstance) -> int:
    """Return the highest id of the event log, as the ledger numbers events; 0 if there is none."""
    return instance.event_log_storage.get_maximum_record_id() or 0


def version_tags(context: dg.OpExecutionContext, key: dg.AssetKey) -> dict[str, str]:
    """Return the tags by which Dagster tells what a materialization was made of, for its staleness page."""
    step = context.get_step_execution_context()
    code_version = step.job_def.asset_layer.get(key).code_version or step.run_id
    inputs = _get_input_provenance_data(key, step)
    versions = {upstream: data["data_version"] for upstream, data in inputs.items()}
    return _build_data_version_tags(
        compute_logical_data_version(code_version, versions), code_version, inputs, False
    )


def check_targets(
    instance: dg.DagsterInstance, key: dg.AssetKey, partitions: Sequence[str | None]
) -> dict[str | None, Any]:
    """Return, by partition, the materialization that a check of it looks at: the newest."""
    only = [partition for partition in partitions if partition is not None]
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, asset_partitions=only or None), limit=len(partitions)
    ).records
    return {
        record.partition_key: AssetCheckEvaluationTargetMaterializationData(
            storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
        )
        for record in reversed(records)
    }


def report_planned(
    instance: dg.DagsterInstance, run: dg.DagsterRun, key: dg.AssetKey, partition: str | None
) -> None:
    """Record that a run is going to build a partition, as its launch should have."""
    event = DagsterEvent.build_asset_materialization_planned_event(
        run.job_name, key.to_python_identifier(), AssetMaterializationPlannedData(key, partition, None)
    )
    instance.report_dagster_event(event, run.run_id)


def is_retry(run: dg.DagsterRun) -> bool:
    """Whether a run goes on where another stopped: from failure, or as an automatic retry."""
    return run.parent_run_id is not None and (
        run.tags.get(RESUME_RETRY_TAG) == "true" or RETRY_NUMBER_TAG in run.tags
    )


def events_of_ancestors(
    instance: dg.DagsterInstance, run: dg.DagsterRun, key: dg.AssetKey
) -> Iterator[dg.AssetMaterialization | AssetCheckEvaluation]:
    """Yield what the runs that this one retries reported of an asset, the oldest run first."""
    parent = instance.get_run_by_id(run.parent_run_id) if run.parent_run_id else None
    if parent is None:
        return
    if is_retry(parent):
        yield from events_of_ancestors(instance, parent, key)
    kinds = {dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_CHECK_EVALUATION}
    for entry in instance.all_logs(parent.run_id, of_type=kinds):
        data = entry.dagster_event.event_specific_data if entry.dagster_event else None
        found = data.materialization if isinstance(data, StepMaterializationData) else data
        if isinstance(found, dg.AssetMaterialization | AssetCheckEvaluation) and found.asset_key == key:
            yield found
