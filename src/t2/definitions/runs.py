"""Runs that a command executes in its own process, on the project's Dagster instance."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import dagster as dg

from t2.definitions import quick_sqlite
from t2.definitions._dagster.sqlite import keep_engines
from t2.definitions.build import build_defs
from t2.definitions.gates import BUILT_BEFORE
from t2.definitions.launcher import in_process_tags
from t2.definitions.partitions import partition_tags
from t2.errors import NodeFailed
from t2.planning.grid import Grid
from t2.planning.selection import Step
from t2.project.model import Project
from t2.runtime.home import prepare_home

# Dagster's console logger writes every event to stderr; the command says itself what it does.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


BY_HAND = "asked for on the command line"


class LocalRuns:
    """Executes steps one after the other; the instance is the one that `t2 dev` uses."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._built: set[str] = set()
        self._job: dg.JobDefinition | None = None
        self._instance: dg.DagsterInstance | None = None

    def __enter__(self) -> LocalRuns:
        quick_sqlite.keep_migrations()
        keep_engines()
        quick_sqlite.keep_connections()
        os.environ["DAGSTER_HOME"] = str(prepare_home(Path(self.project.root)))
        self._job = build_defs(self.project).resolve_implicit_global_asset_job_def()
        self._instance = dg.DagsterInstance.get()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._instance is not None:
            self._instance.dispose()
        quick_sqlite.close()

    def execute(self, step: Step) -> dict[str, Any]:
        """Execute one step; return the run's id, whether it succeeded, its seconds and its first error.

        What was executed before counts as part of the same run for checks that block tables by name.
        """
        assert self._job is not None
        started = time.monotonic()
        blockers = {key for table in step.tables for key in self.project.blockers.get(table, ())}
        after = {BUILT_BEFORE: ",".join(sorted(self._built & blockers))} if self._built & blockers else {}
        self._built.update(step.tables)
        result = self._job.execute_in_process(
            instance=self._instance,
            asset_selection=[dg.AssetKey(key.split("/")) for key in step.tables],
            tags={
                **self._partition_tags(step),
                **in_process_tags(),
                **after,
                "t2/why": BY_HAND,
            },
            run_config=QUIET,
            raise_on_error=False,
        )
        error = _error(result) or _left_out(result)
        return {
            "run": result.run_id,
            "success": error is None,
            "seconds": round(time.monotonic() - started, 1),
            "error": error,
        }

    def check(
        self, key: str, checks: Sequence[str], first: str | None, last: str | None
    ) -> tuple[str, Sequence[dg.AssetCheckEvaluation]]:
        """Evaluate checks of a table or source alone; return the run's id and the evaluations.

        Raises NodeFailed with the run's error if it evaluated nothing.
        """
        assert self._job is not None
        asset = dg.AssetKey(key.split("/"))
        selection = {dg.AssetCheckKey(asset, name) for name in checks}
        result = self._job.get_subset(
            asset_selection=set(), asset_check_selection=selection
        ).execute_in_process(
            instance=self._instance,
            tags={**partition_tags(first, last), **in_process_tags(), "t2/why": BY_HAND},
            run_config=QUIET,
            raise_on_error=False,
        )
        evaluations = result.get_asset_check_evaluations()
        if not evaluations:
            raise NodeFailed(_error(result) or "the run evaluated no check", where=key)
        return result.run_id, evaluations

    def _partition_tags(self, step: Step) -> dict[str, str]:
        partitioning = self.project.tables[step.tables[0]].partitioning
        if partitioning is None:
            return {}
        grid = Grid.of(partitioning)
        return partition_tags(grid.key(step.first), grid.key(step.last))


def _left_out(result: dg.ExecuteInProcessResult) -> str | None:
    """Return why a run left partitions out, None if it built all."""
    lines = []
    for event in result.all_events:
        if event.event_type is dg.DagsterEventType.ASSET_OBSERVATION:
            observation = event.asset_observation_data.asset_observation
            if observation.tags.get("t2/skipped") == "true":
                where = f"{observation.partition} is not built: " if observation.partition else "not built: "
                lines.append(f"{where}{observation.metadata['t2/why'].value}")
    return "\n".join(lines) or None


def _error(result: dg.ExecuteInProcessResult) -> str | None:
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            if data.user_failure_data and data.user_failure_data.description:
                return data.user_failure_data.description
            if failed := [check for check in result.get_asset_check_evaluations() if _blocks(check)]:
                return "\n".join(f"{check.check_name}: {check.description}" for check in failed)
            # Dagster wraps what was raised in an error that says in which op.
            error = (data.error.cause or data.error) if data.error else None
            return (
                error.message.removeprefix(f"t2.errors.{error.cls_name}: ").strip()
                if error
                else "the step failed"
            )
    return None if result.success else "the run failed before its first step"


def _blocks(check: dg.AssetCheckEvaluation) -> bool:
    return not check.passed and bool(check.blocking) and check.severity is dg.AssetCheckSeverity.ERROR
