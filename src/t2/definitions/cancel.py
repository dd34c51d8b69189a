"""Ending runs from the command line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import dagster as dg
from dagster import DagsterRunStatus

from t2.errors import T2Error
from t2.project.model import Project
from t2.runtime.home import prepare_home

# What the planner had decided before has become runs by then.
QUIET_SECONDS = 2.0
PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.2
ACTIVE = [
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


def cancel_runs(project: Project, tags: Mapping[str, str], on_run: Callable[[str], None]) -> None:
    """Cancel the runs with some tags and wait until they have ended; `on_run` is told each one's id.

    Runs that are being requested at this moment count, too. T2Error if some have not ended after a minute.
    """
    os.environ["DAGSTER_HOME"] = str(prepare_home(Path(project.root)))
    told: set[str] = set()
    with dg.DagsterInstance.get() as instance:
        quiet_since = started = time.monotonic()
        while time.monotonic() - quiet_since < QUIET_SECONDS:
            runs = instance.get_runs(dg.RunsFilter(tags=dict(tags), statuses=ACTIVE))
            for run in runs:
                _cancel(instance, run)
                if run.run_id not in told:
                    told.add(run.run_id)
                    on_run(run.run_id)
            if runs:
                quiet_since = time.monotonic()
            if quiet_since - started > PATIENCE_SECONDS:
                raise T2Error(
                    f"{len(runs)} of the runs have not ended after {PATIENCE_SECONDS:.0f} s",
                    hint="its page in Dagster can force it; t2 dev ends at its start what nothing executes",
                )
            time.sleep(LOOK_SECONDS)


def _cancel(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Ask for the end of a run once; one that is just being started is asked again at the next look."""
    if run.status is DagsterRunStatus.NOT_STARTED:
        instance.report_run_canceled(run, "Canceled before it was queued.")
    elif run.status is not DagsterRunStatus.CANCELING:
        instance.run_coordinator.cancel_run(run.run_id)
