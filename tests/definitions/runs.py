"""Executing runs as a run worker does, with the executor of the code location."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run_iterator

SHOWN = {
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.ASSET_OBSERVATION,
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
}


def partition(key: str) -> dict[str, str]:
    return {"dagster/partition": key}


def partitions(first: str, last: str) -> dict[str, str]:
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


@dataclass
class Done:
    """A finished run and its events."""

    run: dg.DagsterRun
    events: list[dg.DagsterEvent]

    @property
    def success(self) -> bool:
        return self.run.is_success

    @cached_property
    def story(self) -> list[str]:
        """What the run reported, a line an event: kind, what, partition, outcome."""
        return [self._line(event) for event in self.events if event.event_type in SHOWN]

    def _line(self, event: dg.DagsterEvent) -> str:
        data: Any = event.event_specific_data
        if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            outcome = "passed" if data.passed else f"failed {data.severity.value}"
            return f"check {data.check_name} {data.partition}: {outcome}"
        if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION:
            return f"built {data.materialization.asset_key.path[-1]} {data.materialization.partition}"
        if event.event_type is dg.DagsterEventType.ASSET_OBSERVATION:
            return f"observed {data.asset_observation.asset_key.path[-1]} {data.asset_observation.partition}"
        return f"{event.event_type.value} {event.step_key}"

    def materializations(self) -> list[dg.AssetMaterialization]:
        return [event.materialization for event in self.events if event.is_step_materialization]

    def failure(self, step: str) -> Any:
        return next(
            event.event_specific_data
            for event in self.events
            if event.is_step_failure and event.step_key == step
        )


class Runs:
    """Runs of one code location on one instance."""

    def __init__(self, defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self.job = defs.resolve_implicit_global_asset_job_def()
        self.instance = instance

    def build(self, *names: str, tags: dict[str, str] | None = None) -> Done:
        """Materialize tables, named "schema/name", with their checks."""
        keys = frozenset(dg.AssetKey(name.split("/")) for name in names)
        job = self.job.get_subset(asset_selection=keys)
        return self._execute(
            job, self.instance.create_run_for_job(job, asset_selection=keys, tags=tags or {})
        )

    def check(self, table: str, *names: str, tags: dict[str, str] | None = None) -> Done:
        """Execute checks alone."""
        keys = frozenset(dg.AssetCheckKey(dg.AssetKey(table.split("/")), name) for name in names)
        job = self.job.get_subset(asset_selection=set(), asset_check_selection=keys)
        assert job.asset_check_selection == keys
        return self._execute(job, self.instance.create_run_for_job(job, tags=tags or {}))

    def retry(self, done: Done) -> Done:
        """Execute all of a failed run's steps again, with the tags of a retry from failure."""
        parent = done.run
        job = self.job.get_subset(asset_selection=set(parent.asset_selection or ()))
        tags = {**parent.tags, "dagster/is_resume_retry": "true"}
        run = self.instance.create_run_for_job(
            job,
            asset_selection=parent.asset_selection,
            tags=tags,
            parent_run_id=parent.run_id,
            root_run_id=parent.root_run_id or parent.run_id,
        )
        return self._execute(job, run)

    def _execute(self, job: dg.JobDefinition, run: dg.DagsterRun) -> Done:
        events = list(execute_run_iterator(InMemoryJob(job), run, self.instance))
        finished = self.instance.get_run_by_id(run.run_id)
        assert finished is not None
        return Done(finished, events)
