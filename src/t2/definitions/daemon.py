"""`python -m t2.definitions.daemon -w workspace.yaml`: Dagster's daemon with loops of half a second.

Stock Dagster looks at its sensors every 5 s, at its backfills every 30 s and at its queue every 5 s; each of
these waits would be longer than everything T2 does between "an input landed" and "the query runs".
"""

from __future__ import annotations

import argparse
import contextlib
import time

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from t2.definitions import quick_sqlite
from t2.definitions._dagster.daemons import daemon_controller
from t2.definitions._dagster.sqlite import keep_engines, plan_in_one_transaction
from t2.definitions.launcher import T2RunLauncher
from t2.runtime import handover

READY = "t2 daemon is ready"
SENSOR_LOOP_SECONDS = 0.5
BACKFILL_LOOP_SECONDS = 5
# A run that has ended needs this long at most to close its files.
LEFT_OVER_SECONDS = 10.0
FINISHED = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]


def main() -> None:
    """Run Dagster's daemons until the process is interrupted."""
    parser = argparse.ArgumentParser(prog="python -m t2.definitions.daemon", description=main.__doc__)
    parser.add_argument("-w", "--workspace", required=True, help="workspace.yaml")
    options = parser.parse_args()
    quick_sqlite.keep_migrations()
    keep_engines()
    plan_in_one_transaction()
    quick_sqlite.keep_connections()
    with (
        dg.DagsterInstance.get() as instance,
        daemon_controller(
            instance,
            options.workspace,
            sensor_loop_seconds=SENSOR_LOOP_SECONDS,
            backfill_loop_seconds=BACKFILL_LOOP_SECONDS,
            sweep=LostRuns().close,
        ) as controller,
    ):
        print(READY, flush=True)
        controller.check_daemon_loop()


class LostRuns:
    """Bring together what Dagster says of runs and what their processes do.

    Runs that nothing will ever start are failed, canceling ones whose process has ended are canceled, and
    processes that outlive their run are killed. Dagster's own monitoring asks the launcher about started
    runs only; the others it leaves to time-outs of minutes, and a process that it gave up it leaves alone.
    """

    def __init__(self) -> None:
        self._suspects: set[str] = set()

    def close(self, instance: dg.DagsterInstance) -> None:
        """Close each run that was lost at the last look and still is, and end what outlives its run.

        At the first look it may only be between its event and the launcher's call, or between its
        process's last event and its end.
        """
        launcher = instance.run_launcher
        if not isinstance(launcher, T2RunLauncher):
            return
        _kill_left_over(instance, launcher)
        statuses = [DagsterRunStatus.STARTING, DagsterRunStatus.CANCELING]
        lost = [
            run for run in instance.get_runs(RunsFilter(statuses=statuses)) if not launcher.is_executed(run)
        ]
        for run in lost:
            if run.run_id not in self._suspects:
                continue
            if run.status == DagsterRunStatus.STARTING:
                instance.report_run_failed(run, "The process of the run died before the run started.")
            else:
                instance.report_run_canceled(run, "The process of the run has ended.")
        self._suspects = {run.run_id for run in lost}


def _kill_left_over(instance: dg.DagsterInstance, launcher: T2RunLauncher) -> None:
    """Kill the processes whose run ended a while ago: it timed out, or a person gave it up."""
    live = handover.live_runs(launcher.home)
    if not live:
        return
    ended = RunsFilter(run_ids=live, statuses=FINISHED)
    for record in instance.get_run_records(ended):
        if record.end_time and record.end_time < time.time() - LEFT_OVER_SECONDS:
            handover.kill_run(launcher.home, record.dagster_run.run_id)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
