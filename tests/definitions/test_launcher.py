"""The launcher and the monitoring on a real instance; and what they assume of Dagster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterEvent, DagsterEventType, DagsterRun, DagsterRunStatus

from t2.definitions import _dagster, quick_sqlite
from t2.definitions._dagster import WorkerStatus
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


def test_a_killed_process_loses_no_event_that_it_has_stored(instance: dg.DagsterInstance) -> None:
    run = make_run(instance, DagsterRunStatus.STARTED)
    pid = os.fork()
    if pid == 0:
        quick_sqlite.keep_migrations()
        _dagster.keep_engines()
        quick_sqlite.flush_at_checkpoints()
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
