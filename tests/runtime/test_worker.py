"""The warm worker with real processes, without Dagster: what forks, what waits, what dies."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from t2.runtime import handover, memory
from t2.runtime.handover import WorkerRecord, WorkerRefusedError, WorkerUnreachableError

# A worker whose code is one module, `what`, and whose runs write what it says.
PROGRAM = """
import sys, time
from pathlib import Path
from t2.runtime.loaded_code import LoadedCode, current_fingerprint
from t2.runtime import worker
from t2.runtime.worker import State, Worker, announce

worker.KILL_AFTER_SECONDS = 0.5
worker.POLL_SECONDS = 0.1
home = Path(sys.argv[1])
state = State.restore_or_open()
announce(home, "here", state)
since, error = time.time(), None
(home / "loads").open("a").write(".")
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

def fail(request, cause):
    (home / f"{request['run_id']}.failed").write_text(cause)

Worker(home, state, change=loaded.change, run=run, fail=fail, error=error).serve()
"""
WRITE = "def run(path):\n    path.write_text({text!r})\n"
SLEEP = "import time\ndef run(path):\n    path.write_text('begun')\n    time.sleep(60)\n"
EAT = "import time\ndef run(path):\n    eaten = b'x' * 300_000_000\n    time.sleep(60)\n"
DEAF = "import signal\n" + SLEEP.replace(
    "    time", "    signal.signal(signal.SIGINT, signal.SIG_IGN)\n    time"
)


class Running:
    def __init__(self, home: Path, program: str = PROGRAM) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, str(home)], env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        )
        until(lambda: handover.find_worker(home, "here"))

    @property
    def record(self) -> WorkerRecord:
        record = handover.find_worker(self.home, "here")
        assert record is not None
        return record

    def run(self, run_id: str, generation: str | None = None, **more: object) -> int:
        request = {"run_id": run_id, "generation": generation, **more}
        return handover.hand_over(self.home, "here", request, loading_seconds=10, silent_seconds=2)

    def text(self, run_id: str) -> str | None:
        path = self.home / run_id
        return path.read_text() if path.exists() else None

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


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
    running.end()


def test_a_run_is_executed_by_a_child_which_holds_its_lock_while_it_lives(home: Path) -> None:
    write_code(home, SLEEP)
    worker = Running(home)
    pid = worker.run("r1")
    until(lambda: worker.text("r1"))
    assert handover.run_pid(home, "r1") == pid != worker.record.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: handover.run_pid(home, "r1") is None, 1.0)
    until(lambda: not Path(f"/proc/{pid}").exists(), 3.0)  # reaped, and no zombie
    worker.end()


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
    worker.end()


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
    worker.end()


def test_a_run_that_uses_too_much_memory_is_killed_and_told_why(home: Path) -> None:
    write_code(home, EAT)
    worker = Running(home)
    worker.run("r1", max_memory_mb=200)
    worker.run("r2", max_memory_mb=1000)
    told = until(lambda: worker.text("r1.failed"))
    assert re.sub(r"used \d+", "used 2xx", told) == (
        "The process of the run was killed: it used 2xx MB of memory and may use 200 MB. Build fewer "
        "partitions in a run (meta.t2.backfill.partitions_per_run) or fewer tables at once (threads), "
        "or raise max_memory_mb of the run launcher in dagster.yaml."
    )
    until(lambda: handover.run_pid(home, "r1") is None)
    assert handover.run_pid(home, "r2")
    assert worker.process.poll() is None
    worker.end()


def test_what_a_run_shares_with_the_worker_counts_in_part_only(home: Path) -> None:
    write_code(home, "import time\nheld = b'x' * 300_000_000\ndef run(path):\n    time.sleep(60)\n")
    worker = Running(home)
    pids = [worker.run(f"r{number}", max_memory_mb=250) for number in range(3)]
    time.sleep(0.5)
    assert [handover.run_pid(home, f"r{number}") for number in range(3)] == pids
    assert all(memory.resident(pid) > 300_000_000 for pid in pids)
    worker.end()


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            "import os, signal\ndef run(path):\n    os.kill(os.getpid(), signal.SIGSEGV)\n",
            "The process of the run crashed with SIGSEGV.",
        ),
        (
            "import os, signal\ndef run(path):\n    os.kill(os.getpid(), signal.SIGKILL)\n",
            "The process of the run was killed (SIGKILL), as the kernel does when memory runs out.",
        ),
        (
            "def run(path):\n    raise OSError('no database')\n",
            "The process of the run could not execute it; the worker's log says why.",
        ),
    ],
)
def test_a_run_whose_process_dies_is_told_how(home: Path, code: str, told: str) -> None:
    write_code(home, code)
    worker = Running(home)
    worker.run("r1")
    assert until(lambda: worker.text("r1.failed")) == told
    until(lambda: not list((home / "live_runs").iterdir()))
    worker.end()


def test_a_worker_that_has_grown_replaces_itself_when_it_is_idle(home: Path) -> None:
    # The code's `change`, which the worker calls, stands for whatever makes it grow.
    write_code(home, SLEEP)
    program = PROGRAM.replace(
        "Worker(home,",
        "eaten = []\n"
        "def change():\n"
        "    if (home / 'grow').exists() and not eaten:\n"
        "        eaten.append(b'x' * 20_000_000)\n"
        "    return loaded.change()\n"
        "worker.GROWTH = 10_000_000\n"
        "Worker(home,",
    ).replace("change=loaded.change", "change=change")
    worker = Running(home, program)
    worker.run("r1")
    until(lambda: worker.text("r1"))
    (home / "grow").touch()
    time.sleep(0.5)
    assert (home / "loads").read_text() == "."
    run = handover.run_pid(home, "r1")
    assert run
    (home / "grow").unlink()
    os.kill(run, signal.SIGKILL)
    until(lambda: (home / "loads").read_text() == "..")
    write_code(home, WRITE.format(text="after"))
    worker.run("r2")
    assert until(lambda: worker.text("r2")) == "after"
    worker.end()


def test_a_stopped_worker_is_given_up_and_found_to_hang(worker: Running, monkeypatch) -> None:
    monkeypatch.setattr(handover, "SILENT_SECONDS", 1.0)
    heartbeat = handover.Heartbeat(worker.home, "here")
    assert not heartbeat.hangs(time.monotonic())
    os.kill(worker.process.pid, signal.SIGSTOP)
    with pytest.raises(WorkerUnreachableError, match=r"the worker \(pid \d+\) did not answer within 2 s"):
        worker.run("r1")
    assert heartbeat.hangs(time.monotonic())
    os.kill(worker.process.pid, signal.SIGCONT)
    until(lambda: not heartbeat.hangs(time.monotonic()))
    worker.run("r2")
    assert until(lambda: worker.text("r2")) == "old"
    # The one that was given up is not executed later either.
    assert worker.text("r1") is None
    assert handover.run_pid(worker.home, "r1") is None


def test_a_worker_that_loads_for_long_is_not_found_to_hang(home: Path, monkeypatch) -> None:
    monkeypatch.setattr(handover, "SILENT_SECONDS", 0.3)
    write_code(home, f"import time\ntime.sleep(1.5)\n{WRITE.format(text='slow')}")
    worker = Running(home)
    heartbeat = handover.Heartbeat(home, "here")
    begun = time.monotonic()
    while time.monotonic() < begun + 1.2:
        assert not heartbeat.hangs(time.monotonic())
        time.sleep(0.05)
    handover.hand_over(home, "here", {"run_id": "r1"}, loading_seconds=10, silent_seconds=0.6)
    assert until(lambda: worker.text("r1")) == "slow"
    worker.end()


def test_runs_launched_while_the_code_changes_are_all_executed_by_code_as_new_as_their_launch(
    home: Path,
) -> None:
    replace_code(home, 0)
    worker = Running(home)
    newest, asked = 0, []
    with ThreadPoolExecutor(4) as pool:
        for number in range(20):
            if number % 4 == 2:
                newest += 1
                replace_code(home, newest)
            asked.append((newest, pool.submit(worker.run, f"r{number}")))
            time.sleep(0.02)
        for _, handed in asked:
            handed.result()
    done = [until(lambda n=n: worker.text(f"r{n}")) for n in range(20)]
    assert newest == 5
    assert all(int(version) >= launched for version, (launched, _) in zip(done, asked, strict=True))
    assert done[-1] == "5"
    worker.end()


def replace_code(home: Path, version: int) -> None:
    """Replace the code at once, as an editor or a checkout does."""
    new = home / "code" / "new"
    new.write_text(f"import time\ntime.sleep(0.1)\n{WRITE.format(text=str(version))}")
    new.replace(home / "code" / "what.py")
