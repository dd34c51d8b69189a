"""The local process family: real runs through the web server, the daemon and the warm worker."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from dbt.adapters.duckdb.credentials import DuckDBCredentials
from tests.end_to_end.local import Web, children, free_port, is_running, make_project, until

from t2.errors import ConfigError
from t2.runtime import handover
from t2.runtime.duckdb_client import ServerSession
from t2.runtime.family import Family
from t2.runtime.home import home_of

CLI = "from t2.cli import main; main()"
TOLD: list[str] = []


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    environ = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    project = make_project(tmp_path_factory.mktemp("family") / "project", dbt=True)
    with Family(project, port=free_port(), module="mine", environ=environ, report=TOLD.append) as family:
        yield family


@pytest.fixture
def web(family: Family) -> Web:
    assert family.url
    return Web(family.url)


def test_a_run_is_executed_warm_and_succeeds(family: Family, web: Web) -> None:
    run_id = web.launch("quick")
    web.wait(run_id, "SUCCESS")
    events = web.events(run_id)
    assert any("warm" in event.get("message", "") for event in events)
    [materialized] = [event for event in events if event["__typename"] == "MaterializationEvent"]
    assert {"label": "text", "text": "old"} in materialized["metadataEntries"]
    [out] = family.home.dagster.glob(f"**/{run_id}/compute_logs/*.out")
    assert "said by the run" in out.read_text()
    worker_log = (family.home.logs / "worker.log").read_text()
    assert not [word for word in ("said by the run", "DEBUG") if word in worker_log]
    until(lambda: not list((family.home.dagster / "live_runs").iterdir()), 3)


def test_a_run_whose_asset_raises_fails_with_the_error(web: Web) -> None:
    run_id = web.launch("fails")
    web.wait(run_id, "FAILURE")
    [failed] = [e for e in web.events(run_id) if e["__typename"] == "ExecutionStepFailureEvent"]
    assert "no such luck" in failed["error"]["cause"]["message"]


def test_a_terminated_run_is_canceled(family: Family, web: Web) -> None:
    run_id = web.launch("slow")
    web.wait(run_id, "STARTED")
    assert web.terminate(run_id) == "TerminateRunSuccess"
    web.wait(run_id, "CANCELED", 6)
    until(lambda: handover.run_pid(family.home.dagster, run_id) is None, 3)


def test_a_run_whose_process_is_killed_fails_within_seconds(family: Family, web: Web) -> None:
    run_id = web.launch("slow")
    web.wait(run_id, "STARTED")
    pid = handover.run_pid(family.home.dagster, run_id)
    assert pid
    os.kill(pid, signal.SIGKILL)
    web.wait(run_id, "FAILURE", 6)
    told = "The process of the run was killed (SIGKILL), as the kernel does when memory runs out."
    assert told in [event.get("message") for event in web.events(run_id)]


# What the two launchers say of processes, and what each says of the place where a run is executed.
OF_THE_LAUNCHER = ("EngineEvent", "LogsCapturedEvent")


def kinds(web: Web, run_id: str) -> list[str]:
    return [event["__typename"] for event in web.events(run_id)]


def outcomes(web: Web) -> dict[str, tuple[str, list[str]]]:
    """What becomes of runs that succeed, fail, are terminated and take too long, an entry a run."""
    runs = {
        "tables": web.launch("main/one", "main/two"),
        "fails": web.launch("fails"),
        "terminated": web.launch("slow"),
        "too long": web.launch("slow", max_runtime="3"),
    }
    until(lambda: "ExecutionStepStartEvent" in kinds(web, runs["terminated"]), 60)
    assert web.terminate(runs["terminated"]) == "TerminateRunSuccess"
    ended = {"SUCCESS", "FAILURE", "CANCELED"}
    until(lambda: {web.status(run_id) for run_id in runs.values()} <= ended, 60)
    found = {}
    for name, run_id in runs.items():
        found[name] = (
            web.status(run_id),
            [kind for kind in kinds(web, run_id) if kind not in OF_THE_LAUNCHER],
        )
    told = [event.get("message") for event in web.events(runs["too long"])]
    assert "Exceeded maximum runtime of 3 seconds." in told
    # Dagster's monitoring says that it failed, its process that it was canceled, and either may be first.
    assert found.pop("too long")[0] in ("FAILURE", "CANCELED")
    return found


def test_runs_end_in_the_same_way_with_dagsters_own_launcher(
    family: Family, web: Web, tmp_path: Path
) -> None:
    warm = outcomes(web)
    assert {name: status for name, (status, _) in warm.items()} == {
        "tables": "SUCCESS",
        "fails": "FAILURE",
        "terminated": "CANCELED",
    }
    project = make_project(tmp_path / "project", dbt=True)
    config = yaml.safe_load(family.home.config.read_text().replace(str(family.home.state), f"{project}/.t2"))
    del config["run_launcher"]
    (project / ".t2").mkdir()
    (project / ".t2/dagster.yaml").write_text(yaml.safe_dump(config))
    environ = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    with Family(project, port=free_port(), module="mine", environ=environ) as stock:
        assert "worker" not in stock.processes
        assert stock.url
        assert outcomes(Web(stock.url)) == warm


def test_a_worker_that_hangs_is_replaced_and_its_run_starts_without_it(family: Family, web: Web) -> None:
    hanging = family.processes["worker"]
    os.kill(hanging, signal.SIGSTOP)
    run_id = web.launch("quick")
    until(lambda: family.processes.get("worker", hanging) != hanging, 15)
    web.wait(run_id, "SUCCESS", 60)
    told = [event.get("message", "") for event in web.events(run_id)]
    assert [text for text in told if text.startswith("Not started warm but in the code server: the worker")]


def test_changed_code_is_what_the_next_run_executes(family: Family, web: Web) -> None:
    module = family.home.project / "mine.py"
    module.write_text(module.read_text().replace('"old"', '"new"'))
    run_id = web.launch("quick")
    web.wait(run_id, "SUCCESS")
    [materialized] = [e for e in web.events(run_id) if e["__typename"] == "MaterializationEvent"]
    assert {"label": "text", "text": "new"} in materialized["metadataEntries"]


def test_what_dies_is_started_again(family: Family, web: Web) -> None:
    before = dict(family.processes)
    run_id = web.launch("slow")
    web.wait(run_id, "STARTED")
    [inner] = children(before["code location"])
    for pid in (before["worker"], before["daemon"], inner):
        os.kill(pid, signal.SIGKILL)

    def replaced() -> bool:
        now = family.processes
        names = ("worker", "daemon", "code location")
        return all(now.get(name, before[name]) != before[name] for name in names)

    until(replaced, 15)
    web.wait(run_id, "FAILURE", 25)
    web.wait(web.launch("quick"), "SUCCESS", 25)


def test_who_keeps_a_duckdb_file_from_the_warehouse_is_told(family: Family, tmp_path: Path) -> None:
    file = str(tmp_path / "kept.duckdb")
    code = f"import duckdb, time; c = duckdb.connect({file!r}); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as notebook:
        assert notebook.stdout
        notebook.stdout.readline()
        session = ServerSession(family.home.project, pickle.dumps(DuckDBCredentials(path=file)))
        thread = threading.Thread(target=session.execute, args=("select 1",))
        thread.start()
        until(lambda: any(f"(pid {notebook.pid}): what needs it waits" in line for line in TOLD), 20)
        notebook.kill()
    thread.join(10)
    assert session.fetchall() == [(1,)]
    session.close()
    until(lambda: any("kept.duckdb is free again after" in line for line in TOLD), 5)


def test_a_second_family_of_the_project_is_refused(family: Family) -> None:
    with pytest.raises(ConfigError, match=rf"already runs .*\(pid {os.getpid()}\)"):
        Family(family.home.project, webserver=False).start()


def test_a_taken_port_is_refused(family: Family, tmp_path: Path) -> None:
    port = int(family.url.rpartition(":")[2]) if family.url else 0
    with pytest.raises(ConfigError, match="Address already in use") as raised:
        Family(make_project(tmp_path / "other"), port=port).start()
    assert raised.value.hint == "take another with --port"


def test_a_code_location_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    # Regression: Dagster's log has two wordings for it, and the one at the start was not looked for.
    project = make_project(tmp_path / "broken")
    (project / "mine.py").write_text('raise ValueError("no such luck")\n')
    told: list[str] = []
    with Family(project, webserver=False, module="mine", report=told.append):
        assert any(line.startswith("code location cannot be loaded\n") for line in told)


ASSETS = "{ assetNodes { assetKey { path } } }"


def test_an_edited_project_is_loaded_again_and_a_mistake_in_it_takes_nothing_down(tmp_path: Path) -> None:
    project, told = tmp_path / "small", list[str]()
    (project / "models").mkdir(parents=True)
    (project / "dbt_project.yml").write_text("name: small\nprofile: small\n")
    (project / "profiles.yml").write_text(
        "small: {target: dev, outputs: {dev: {type: duckdb, path: small.duckdb, schema: main}}}\n"
    )
    (project / "models" / "one.sql").write_text("select 1 as id")

    def edit(name: str, sql: str, answer: str) -> None:
        told.clear()
        (project / "models" / name).write_text(sql)
        until(lambda: any(line.startswith(answer) for line in told), 60)

    environ = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    with Family(project, port=free_port(), environ=environ, report=told.append) as family:
        assert family.url
        web = Web(family.url)

        def names() -> set[str]:
            return {node["assetKey"]["path"][-1] for node in web.ask(ASSETS)["assetNodes"]}

        assert names() == {"one"}
        edit("two.sql", "select * from {{ ref('one') }}", "the project was edited; loaded again after")
        assert told[-1].endswith(": 2 tables")
        until(lambda: names() == {"one", "two"}, 5)
        edit("two.sql", "select * from {{ ref('none') }}", "the project was edited and cannot be loaded")
        assert "none" in told[-1]
        assert names() == {"one", "two"}
        edit("two.sql", "select 2 as id", "the project was edited; loaded again after")
        web.wait(web.launch("main/two"), "SUCCESS")


class Dev:
    """`t2 dev` as a process, and every process that it started."""

    def __init__(self, project: Path, port: int) -> None:
        environ = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
        command = [sys.executable, "-c", CLI, "dev", "--module", "mine", "--port", str(port)]
        self.process = subprocess.Popen(
            [*command, "--project-dir", str(project)], env=environ, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if line.startswith("Ctrl-C"):
                break
        self.web = Web(f"http://127.0.0.1:{port}")
        self.family = descendants(self.process.pid)

    def alive(self) -> list[int]:
        return [pid for pid in self.family if is_running(pid)]


def descendants(pid: int) -> list[int]:
    return [pid for child in children(pid) for pid in (child, *descendants(child))]


def test_a_killed_supervisor_takes_all_with_it_and_the_next_start_fails_the_lost_runs(tmp_path: Path) -> None:
    project, port = make_project(tmp_path / "project"), free_port()
    first = Dev(project, port)
    run_id = first.web.launch("slow")
    first.web.wait(run_id, "STARTED")
    first.family = descendants(first.process.pid)
    assert len(first.alive()) >= 7  # guard, code server and its own, worker, run, daemon, web server
    first.process.kill()
    first.process.wait()
    until(lambda: not first.alive(), 2)

    second = Dev(project, port)
    second.web.wait(run_id, "FAILURE", 6)
    assert second.lines[-2:] == [f"http://127.0.0.1:{port}", "Ctrl-C ends it"]
    third = subprocess.run(
        [sys.executable, "-c", CLI, "reset", "--yes", "--project-dir", str(project)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (third.returncode, str(second.process.pid) in third.stderr) == (2, True)
    started = time.monotonic()
    second.process.send_signal(signal.SIGINT)
    assert second.process.wait(10) == 0
    assert time.monotonic() - started < 6
    until(lambda: not second.alive(), 1)
    assert home_of(project, {}).config.exists()
