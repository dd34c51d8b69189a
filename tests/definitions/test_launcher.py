"""The launcher and the monitoring on a real instance; and what they assume of Dagster."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterEvent, DagsterEventType, DagsterRun, DagsterRunStatus
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

from t2.definitions import daemon, quick_sqlite
from t2.definitions._dagster.runs import WorkerStatus
from t2.definitions._dagster.sqlite import keep_engines
from t2.definitions.daemon import LostRuns
from t2.definitions.launcher import T2RunLauncher, in_process_tags
from t2.runtime import handover
from t2.runtime.home import open_home


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dbt_project.yml").write_text("name: mine\n")
    home = open_home(tmp_path, {})
    monkeypatch.setenv("DAGSTER_HOME", str(home.dagster))
    with dg.DagsterInstance.get() as instance:
        yield instance


def launcher(instance: dg.DagsterInstance) -> T2RunLauncher:
    assert isinstance(instance.run_launcher, T2RunLauncher)
    return instance.run_launcher


def make_run(
    instance: dg.DagsterInstance, status: DagsterRunStatus, tags: dict[str, str] | None = None
) -> DagsterRun:
    return instance.create_run_for_job(
        dg.GraphDefinition("job", node_defs=[]).to_job(), status=status, tags=tags
    )


def test_the_written_configuration_is_one_that_dagster_takes(instance: dg.DagsterInstance) -> None:
    assert launcher(instance).home == Path(os.environ["DAGSTER_HOME"])
    assert instance.run_monitoring_enabled
    assert instance.run_monitoring_poll_interval_seconds == 2
    assert instance.run_monitoring_max_runtime_seconds == 21600
    queue = instance.get_concurrency_config().run_queue_config
    assert queue is not None
    assert (queue.max_concurrent_runs, queue.should_block_op_concurrency_limited_runs) == (4, False)
    assert instance.get_sensor_settings() == {"use_threads": True, "num_workers": 4}
    assert not instance.run_retries_enabled
    assert set(instance.get_required_daemon_types()) >= {"SENSOR", "QUEUED_RUN_COORDINATOR", "MONITORING"}
    assert "FRESHNESS_DAEMON" not in instance.get_required_daemon_types()


def test_a_configuration_that_the_user_edited_stays(tmp_path: Path) -> None:
    (tmp_path / "dbt_project.yml").write_text("name: mine\n")
    config = open_home(tmp_path, {}).config
    config.write_text("telemetry: {enabled: false}\n")
    assert open_home(tmp_path, {}).config.read_text() == "telemetry: {enabled: false}\n"


def test_a_run_is_alive_while_its_lock_is_held(instance: dg.DagsterInstance) -> None:
    run = make_run(instance, DagsterRunStatus.STARTED)
    lock = handover.lock_run(launcher(instance).home, run.run_id)
    assert launcher(instance).check_run_worker_health(run).status == WorkerStatus.RUNNING
    lock.close()
    assert launcher(instance).check_run_worker_health(run).status == WorkerStatus.NOT_FOUND


def test_a_run_of_a_command_is_alive_while_the_command_is(instance: dg.DagsterInstance) -> None:
    mine = make_run(instance, DagsterRunStatus.STARTED, in_process_tags())
    program = "from t2.definitions.launcher import in_process_tags; print(in_process_tags()['t2/process'])"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lost = make_run(instance, DagsterRunStatus.STARTED, {"t2/process": ended.stdout.strip()})
    assert [launcher(instance).is_executed(run) for run in (mine, lost)] == [True, False]


def test_a_run_that_nothing_will_start_is_failed_at_the_second_look(instance: dg.DagsterInstance) -> None:
    lost = make_run(instance, DagsterRunStatus.STARTING)
    lives = make_run(instance, DagsterRunStatus.STARTING)
    canceled = make_run(instance, DagsterRunStatus.CANCELING)
    lock = handover.lock_run(launcher(instance).home, lives.run_id)
    runs = LostRuns()
    statuses = []
    for _ in range(2):
        runs.close(instance)
        found = [instance.get_run_by_id(run.run_id) for run in (lost, lives, canceled)]
        statuses.append([run.status.value for run in found if run])
    lock.close()
    assert statuses == [["STARTING", "STARTING", "CANCELING"], ["FAILURE", "STARTING", "CANCELED"]]


def hang(instance: dg.DagsterInstance, run: DagsterRun) -> int:
    """Fork a process that holds the run's lock, as the worker's children do, and never does anything."""
    lock = handover.lock_run(launcher(instance).home, run.run_id)
    pid = os.fork()
    if pid == 0:
        handover.note_process(lock)
        time.sleep(60)
        os._exit(0)
    lock.close()
    return pid


def monitor(instance: dg.DagsterInstance) -> None:
    with WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as process:
        LostRuns().close(instance)
        assert not [
            error for error in execute_run_monitoring_iteration(process, logging.getLogger()) if error
        ]


def test_a_process_that_hangs_before_its_run_starts_fails_it_and_is_killed(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(instance, DagsterRunStatus.NOT_STARTED)
    starting = DagsterEvent(DagsterEventType.PIPELINE_STARTING.value, run.job_name)
    instance.report_dagster_event(starting, run.run_id)
    pid = hang(instance, run)
    monitor(instance)
    assert instance.get_run_by_id(run.run_id).status == DagsterRunStatus.STARTING  # type: ignore[union-attr]
    instance.run_monitoring_settings["start_timeout_seconds"] = 0.1
    time.sleep(0.2)
    monitor(instance)
    assert instance.get_run_by_id(run.run_id).status == DagsterRunStatus.FAILURE  # type: ignore[union-attr]
    told = "Run timed out due to taking longer than 0.1 seconds to start."
    assert told in [event.message for event in instance.all_logs(run.run_id)]
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    monkeypatch.setattr(daemon, "LEFT_OVER_SECONDS", 0.1)
    time.sleep(0.2)
    monitor(instance)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_the_process_of_a_run_that_has_not_ended_is_left_alone(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "LEFT_OVER_SECONDS", 0.0)
    pid = hang(instance, make_run(instance, DagsterRunStatus.STARTED))
    monitor(instance)
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_killed_process_loses_no_event_that_it_has_stored(instance: dg.DagsterInstance) -> None:
    run = make_run(instance, DagsterRunStatus.STARTED)
    pid = os.fork()
    if pid == 0:
        quick_sqlite.keep_migrations()
        keep_engines()
        quick_sqlite.keep_connections()
        mine = dg.DagsterInstance.get()
        for number in range(20):
            mine.report_engine_event(f"event {number}", run)
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    messages = [event.message for event in instance.all_logs(run.run_id)]
    assert [message for message in messages if message.startswith("event ")] == [
        f"event {number}" for number in range(20)
    ]
    event = DagsterEvent(DagsterEventType.RUN_SUCCESS.value, job_name="job", message="done")
    instance.report_dagster_event(event, run.run_id)
    assert instance.get_run_by_id(run.run_id).status == DagsterRunStatus.SUCCESS  # type: ignore[union-attr]


def test_dagster_still_has_what_the_daemon_replaces() -> None:
    import dagster._daemon.controller as controllers
    import dagster._daemon.sensor as sensors

    assert sensors.MIN_INTERVAL_LOOP_TIME == 5
    assert controllers.DEFAULT_DAEMON_INTERVAL_SECONDS == 30
