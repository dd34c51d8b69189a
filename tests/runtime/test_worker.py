"""The warm worker with real processes, without Dagster: what forks, what waits, what dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from t2.runtime import handover
from t2.runtime.handover import WorkerRecord, WorkerRefusedError

# A worker whose code is one module, `what`, and whose runs write what it says.
PROGRAM = """
import sys, time
from pathlib import Path
from t2.runtime.loaded_code import LoadedCode, current_fingerprint
from t2.runtime import worker
from t2.runtime.worker import State, Worker, announce

worker.KILL_AFTER_SECONDS = 0.5
home = Path(sys.argv[1])
state = State.restore_or_open()
announce(home, "here", state)
since, error = time.time(), None
sys.path.insert(0, str(home / "code"))
sys.dont_write_bytecode = True
fingerprint = current_fingerprint(home)
try:
    import what
except Exception as problem:
    error = repr(problem)
loaded = LoadedCode.take(home, [home / "code"], fingerprint=fingerprint, since=since)

def run(request):
    what.run(home / request["run_id"])

Worker(home, state, change=loaded.change, run=run, error=error).serve()
"""
WRITE = "def run(path):\n    path.write_text({text!r})\n"
SLEEP = "import time\ndef run(path):\n    path.write_text('begun')\n    time.sleep(60)\n"
DEAF = "import signal\n" + SLEEP.replace(
    "    time", "    signal.signal(signal.SIGINT, signal.SIG_IGN)\n    time"
)


class Running:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(home)], env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        )
        until(lambda: handover.find_worker(home, "here"))

    @property
    def record(self) -> WorkerRecord:
        record = handover.find_worker(self.home, "here")
        assert record is not None
        return record

    def run(self, run_id: str, generation: str | None = None) -> int:
        return handover.hand_over(self.record, {"run_id": run_id, "generation": generation}, timeout=10)

    def text(self, run_id: str) -> str | None:
        path = self.home / run_id
        return path.read_text() if path.exists() else None


def until(condition, seconds: float = 10.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)
    return found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    write_code(tmp_path, WRITE.format(text="old"))
    return tmp_path


def write_code(home: Path, text: str) -> None:
    (home / "code" / "what.py").write_text(text)


@pytest.fixture
def worker(home: Path) -> Iterator[Running]:
    running = Running(home)
    yield running
    running.process.kill()
    running.process.wait()


def test_a_run_is_executed_by_a_child_which_holds_its_lock_while_it_lives(home: Path) -> None:
    write_code(home, SLEEP)
    worker = Running(home)
    pid = worker.run("r1")
    until(lambda: worker.text("r1"))
    assert handover.run_pid(home, "r1") == pid != worker.record.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: handover.run_pid(home, "r1") is None, 1.0)
    until(lambda: not Path(f"/proc/{pid}").exists(), 3.0)  # reaped, and no zombie
    worker.process.kill()
    worker.process.wait()


def test_a_launcher_that_gave_up_leaves_nothing_running(worker: Running) -> None:
    import json
    import socket

    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(worker.record.socket)
        connection.sendall(json.dumps({"run_id": "r1"}).encode() + b"\n")
        pid = json.loads(connection.makefile().readline())["pid"]
    until(lambda: not Path(f"/proc/{pid}").exists(), 3.0)
    assert worker.text("r1") is None


def test_the_same_run_is_not_executed_twice_at_once(home: Path) -> None:
    write_code(home, SLEEP)
    worker = Running(home)
    worker.run("r1")
    with pytest.raises(WorkerRefusedError, match="executes this run already"):
        worker.run("r1")
    worker.process.kill()
    worker.process.wait()


def test_changed_code_is_loaded_before_the_next_run_and_the_request_waits(worker: Running) -> None:
    pid = worker.record.pid
    worker.run("r1")
    write_code(worker.home, WRITE.format(text="new"))
    worker.run("r2")
    assert [until(lambda: worker.text("r1")), until(lambda: worker.text("r2"))] == ["old", "new"]
    assert worker.record.pid == pid


def test_a_newly_parsed_project_is_loaded_too(worker: Running) -> None:
    current = worker.home / "target" / "t2" / "current"
    current.parent.mkdir(parents=True)
    before = Path(worker.record.socket).stat().st_ino
    started = handover.process_started(worker.record.pid)
    current.write_text("2f")
    worker.run("r1")
    assert until(lambda: worker.text("r1")) == "old"
    assert (Path(worker.record.socket).stat().st_ino, handover.process_started(worker.record.pid)) == (
        before,
        started,
    )


def test_a_code_server_that_loaded_anew_makes_the_worker_do_so(worker: Running) -> None:
    worker.run("r1", generation="a")
    modified = (worker.home / "code" / "what.py").stat().st_mtime_ns
    write_code(worker.home, WRITE.format(text="new"))
    # A change that no modification time shows, as of a YAML file.
    os.utime(worker.home / "code" / "what.py", ns=(modified, modified))
    worker.run("r2", generation="a")
    worker.run("r3", generation="b")
    assert [until(lambda r=r: worker.text(r)) for r in ("r1", "r2", "r3")] == ["old", "old", "new"]


def test_code_that_cannot_be_loaded_refuses_runs_until_it_can(worker: Running) -> None:
    write_code(worker.home, "import no_such_module\n")
    with pytest.raises(WorkerRefusedError, match="no_such_module"):
        worker.run("r1")
    write_code(worker.home, WRITE.format(text="repaired"))
    worker.run("r2")
    assert until(lambda: worker.text("r2")) == "repaired"


def test_runs_end_with_their_worker(home: Path) -> None:
    write_code(home, SLEEP)
    worker = Running(home)
    worker.run("r1")
    until(lambda: worker.text("r1"))
    worker.process.kill()
    worker.process.wait()
    until(lambda: handover.run_pid(home, "r1") is None, 2.0)


def test_a_worker_after_a_killed_one_removes_its_socket(home: Path) -> None:
    first = Running(home)
    socket = Path(first.record.socket)
    first.process.kill()
    first.process.wait()
    assert handover.find_worker(home, "here") is None
    assert socket.exists()
    second = Running(home)
    second.run("r1")
    assert until(lambda: second.text("r1")) == "old"
    assert not socket.exists()
    second.process.terminate()
    second.process.wait()
    assert not handover.worker_path(home, "here").exists()


def test_a_terminated_run_that_does_not_listen_is_killed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_code(home, DEAF)
    worker = Running(home)
    worker.run("r1")
    until(lambda: worker.text("r1"))
    assert handover.ask(worker.record, {"terminate": "r1"}, timeout=5) == {"terminated": True}
    until(lambda: handover.run_pid(home, "r1") is None, 14.0)
    worker.process.kill()
    worker.process.wait()
