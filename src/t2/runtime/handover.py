"""How a run is handed to the warm worker: the files both sides agree on and the launcher's side.

Below DAGSTER_HOME:

    workers/<location>.json   pid, start and socket of the worker that holds a code location
    live_runs/<run id>        locked by the process of the run for as long as it lives

The lock is the kernel's, so it goes with the process however that ends, no pid is ever mistaken for
another's, and asking costs no database. One exchange on the socket, a line of JSON each:

    launcher: {"run_id": ..., ...}    worker: {"pid": ...} or {"error": ...}    launcher: go

A launcher that gave up waiting closes the socket, so the child reads the end of file in place of `go` and
ends: a run is executed at most once, and never by two processes.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

GO = b"go\n"


class WorkerUnreachableError(Exception):
    """No worker listens for this code location; nothing was handed over."""


class WorkerRefusedError(Exception):
    """The worker took the request and cannot run it; nothing runs."""


@dataclass(frozen=True)
class WorkerRecord:
    """Where a worker listens. `started` is its start in clock ticks since boot, as /proc tells it."""

    pid: int
    started: int
    socket: str


def process_started(pid: int) -> int:
    """Return the start time of a process in clock ticks since boot, 0 where /proc does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[19])


def write_atomically(path: Path, text: str) -> None:
    """Replace a small file so that a reader sees the old text or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def worker_path(home: Path, location: str) -> Path:
    """Return the file in which the worker of a code location says where it listens."""
    return home / "workers" / f"{quote(location, safe='')}.json"


def write_worker(home: Path, location: str, record: WorkerRecord) -> None:
    """Announce a worker."""
    write_atomically(worker_path(home, location), json.dumps(asdict(record)))


def find_worker(home: Path, location: str) -> WorkerRecord | None:
    """Return the worker of a code location if its process still lives."""
    try:
        record = WorkerRecord(**json.loads(worker_path(home, location).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return record if is_alive(record.pid, record.started) else None


def is_alive(pid: int, started: int) -> bool:
    """Whether the process with this pid is the one that started then."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return process_started(pid) == started


def hand_over(record: WorkerRecord, request: dict[str, Any], timeout: float) -> int:
    """Have the worker run it; return the pid of the run's process.

    Raises WorkerUnreachableError if nobody listens, WorkerRefusedError with the worker's reason, and
    TimeoutError if the worker did not answer in time (the run will then not be executed).
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(record.socket)
        except OSError as error:
            raise WorkerUnreachableError(f"{record.socket}: {error}") from error
        answer = _exchange(connection, request)
        if "error" in answer:
            raise WorkerRefusedError(answer["error"])
        connection.sendall(GO)
        return int(answer["pid"])


def ask(record: WorkerRecord, request: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Send a request that starts nothing (`ping`, `terminate`) and return the answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(record.socket)
            return _exchange(connection, request)
        except OSError as error:
            raise WorkerUnreachableError(f"{record.socket}: {error}") from error


def _exchange(connection: socket.socket, request: dict[str, Any]) -> dict[str, Any]:
    connection.sendall(json.dumps(request).encode() + b"\n")
    with connection.makefile("rb") as lines:
        line = lines.readline()
    if not line:
        raise WorkerRefusedError("the worker ended before it answered")
    answer: dict[str, Any] = json.loads(line)
    return answer


def live_run_path(home: Path, run_id: str) -> Path:
    """Return the file that the process of a run holds locked."""
    return home / "live_runs" / run_id


def lock_run(home: Path, run_id: str) -> IO[str]:
    """Lock a run's file; the process forked next inherits the lock. BlockingIOError if it already runs."""
    path = live_run_path(home, run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+")
    for patience in (0.01, 0.05, 0.2, None):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if patience is None:
                file.close()
                raise
            # Somebody who asks whether the run lives holds the lock for some microseconds.
            time.sleep(patience)
    raise AssertionError("unreachable")


def run_pid(home: Path, run_id: str) -> int | None:
    """Return the pid of the process that executes a run, 0 if it is just starting, None if there is none."""
    try:
        with live_run_path(home, run_id).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0)
    except FileNotFoundError:
        pass
    return None


def interrupt_run(home: Path, run_id: str) -> bool:
    """Interrupt the process of a run as Ctrl-C would; False if there is none."""
    pid = run_pid(home, run_id)
    if not pid:
        return False
    try:
        os.kill(pid, signal.SIGINT)
    except ProcessLookupError:
        return False
    return True
