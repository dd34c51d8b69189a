"""How a run is handed to the warm worker: the files both sides agree on and the launcher's side.

Below DAGSTER_HOME:

    workers/<location>.json   pid, start and socket of the worker that holds a code location; the worker
                              touches it every second, unless it is loading
    live_runs/<run id>        locked by the process of the run for as long as it lives

The lock is the kernel's, so it goes with the process however that ends, no pid is ever mistaken for
another's, and asking costs no database. One exchange on the socket, a line of JSON each:

    launcher: {"run_id": ..., ...}    worker: {"pid": ...} or {"error": ...}    launcher: go

A launcher that gave up waiting closes the socket, so the child reads the end of file in place of `go` and
ends: a run is executed at most once, and never by two processes. Before `go` nothing has begun, so whatever
goes wrong until then, the launcher may start the run in another way.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

GO = b"go\n"
# A worker that is not loading and silent for so long hangs.
SILENT_SECONDS = 10.0
# No project takes so long to load.
LOADING_SECONDS = 600.0
POLL_SECONDS = 0.5


class WorkerUnreachableError(Exception):
    """No worker took the run; nothing was handed over."""


class WorkerRefusedError(Exception):
    """The worker took the request and cannot run it; nothing runs."""


@dataclass(frozen=True)
class WorkerRecord:
    """Where a worker listens. `started` is its start in clock ticks since boot, as /proc tells it.

    While it is `loading` it answers nothing.
    """

    pid: int
    started: int
    socket: str
    loading: bool = False


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


class Heartbeat:
    """Tell whether the worker of a code location hangs: it lives and gives no sign of it.

    Measured by the observer's own monotonic clock, so that a machine that slept finds no hanging worker.
    """

    def __init__(self, home: Path, location: str) -> None:
        self._home = home
        self._location = location
        self._beat: int | None = None
        self._since = 0.0

    def hangs(self, now: float) -> bool:
        """Look again at `now` (monotonic seconds)."""
        try:
            beat = worker_path(self._home, self._location).stat().st_mtime_ns
        except OSError:
            return False
        if beat != self._beat:
            self._beat, self._since = beat, now
        silent = now - self._since
        if silent <= SILENT_SECONDS:
            return False
        record = find_worker(self._home, self._location)
        return record is not None and silent > (LOADING_SECONDS if record.loading else SILENT_SECONDS)


def beat(home: Path, location: str) -> None:
    """Give a sign of life."""
    with suppress(FileNotFoundError):
        os.utime(worker_path(home, location))


def hand_over(
    home: Path,
    location: str,
    request: dict[str, Any],
    *,
    loading_seconds: float,
    silent_seconds: float = SILENT_SECONDS,
) -> int:
    """Have the worker of a code location run it; return the pid of the run's process.

    Waits `loading_seconds` for a worker that loads changed code, `silent_seconds` for one that should answer.
    Raises WorkerUnreachableError if no worker took the run and WorkerRefusedError with the worker's reason.
    """
    record = find_worker(home, location)
    if record is None:
        raise WorkerUnreachableError("no worker runs")
    patience = _Patience(home, location, loading_seconds, silent_seconds)
    with _connect(record, silent_seconds) as connection:
        answer = _exchange(connection, request, patience)
        if "error" in answer:
            raise WorkerRefusedError(answer["error"])
        try:
            connection.sendall(GO)
        except OSError as error:
            raise WorkerUnreachableError(f"the process of the run died at once: {error}") from error
        return int(answer["pid"])


def ask(record: WorkerRecord, request: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Send a request that starts nothing (`ping`, `terminate`) and return the answer."""
    deadline = time.monotonic() + timeout

    def patience() -> None:
        if time.monotonic() > deadline:
            raise WorkerUnreachableError(f"the worker did not answer within {timeout:g} s")

    with _connect(record, timeout) as connection:
        return _exchange(connection, request, patience)


class _Patience:
    """Called while there is no answer; raises WorkerUnreachableError once it is of no use to wait on."""

    def __init__(self, home: Path, location: str, loading_seconds: float, silent_seconds: float) -> None:
        self._place = home, location
        self._loading_seconds = loading_seconds
        self._silent_seconds = silent_seconds
        self._started = self._silent_since = time.monotonic()

    def __call__(self) -> None:
        now = time.monotonic()
        record = find_worker(*self._place)
        if record is None:
            raise WorkerUnreachableError("the worker died")
        if record.loading:
            self._silent_since = now
        if now - self._silent_since > self._silent_seconds:
            raise WorkerUnreachableError(
                f"the worker (pid {record.pid}) did not answer within {self._silent_seconds:g} s"
            )
        if now - self._started > self._loading_seconds:
            raise WorkerUnreachableError(f"the worker still loads after {self._loading_seconds:g} s")


def _connect(record: WorkerRecord, timeout: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout)
    try:
        connection.connect(record.socket)
    except OSError as error:
        connection.close()
        raise WorkerUnreachableError(f"{record.socket}: {error}") from error
    return connection


def _exchange(
    connection: socket.socket, request: dict[str, Any], patience: Callable[[], None]
) -> dict[str, Any]:
    line = b""
    try:
        connection.sendall(json.dumps(request).encode() + b"\n")
        connection.settimeout(POLL_SECONDS)
        while not line.endswith(b"\n"):
            try:
                piece = connection.recv(65536)
            except TimeoutError:
                patience()
                continue
            if not piece:
                raise WorkerUnreachableError("the worker ended before it answered")
            line += piece
    except OSError as error:
        raise WorkerUnreachableError(f"the worker cannot be asked: {error}") from error
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
                return int((file.read().split() or ["0"])[0])
    except FileNotFoundError:
        pass
    return None


def live_runs(home: Path) -> list[str]:
    """Return the ids of the runs that processes execute."""
    try:
        names = sorted(path.name for path in (home / "live_runs").iterdir())
    except FileNotFoundError:
        return []
    return [name for name in names if run_pid(home, name) is not None]


def note_process(lock: IO[str]) -> None:
    """Write the pid of this process into the lock of its run."""
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()


def note_begun(lock: IO[str]) -> None:
    """Write behind the pid that the run is going to be executed now."""
    lock.write(" begun")
    lock.flush()


def has_begun(home: Path, run_id: str) -> bool:
    """Whether the process of a run began to execute it, whatever became of the process."""
    try:
        return live_run_path(home, run_id).read_text().endswith(" begun")
    except FileNotFoundError:
        return False


def interrupt_run(home: Path, run_id: str) -> bool:
    """Interrupt the process of a run as Ctrl-C would; False if there is none."""
    return _signal_run(home, run_id, signal.SIGINT)


def kill_run(home: Path, run_id: str) -> bool:
    """Kill the process of a run; False if there is none."""
    return _signal_run(home, run_id, signal.SIGKILL)


def _signal_run(home: Path, run_id: str, number: signal.Signals) -> bool:
    pid = run_pid(home, run_id)
    if not pid:
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
