"""The warm worker: one process that has loaded everything and forks a child for each run.

It knows neither Dagster nor dbt: `definitions/worker.py` gives it what to load and what a child does.
Fork is safe here because the worker has one thread and no connection to a database or code server.
What changed on disk is never run from memory: the worker replaces itself (exec) before it forks, while
the request waits; the listening socket and the children stay with the process.
"""

from __future__ import annotations

import json
import logging
import math
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn

from t2.runtime import handover
from t2.runtime.parent_death import die_with_parent

STATE = "T2_WORKER_STATE"
POLL_SECONDS = 1.0
# A run that was asked to end and is stuck in a query is killed after this; Dagster's monitoring closes it.
KILL_AFTER_SECONDS = 10.0

logger = logging.getLogger("t2.worker")

Request = dict[str, Any]


@dataclass
class State:
    """What survives when the worker replaces itself: sockets, children, the code server it follows."""

    socket: str
    listener: int
    generation: str | None = None
    children: dict[str, int] = field(default_factory=dict)
    deadlines: dict[str, float] = field(default_factory=dict)
    pending: list[tuple[int, Request]] = field(default_factory=list)

    @classmethod
    def restore_or_open(cls) -> State:
        """Take over from the code before, or open a socket in a short private directory.

        Short because a socket's path has at most 107 bytes on Linux, and a project's may be longer.
        """
        if saved := os.environ.pop(STATE, None):
            return cls(**json.loads(saved))
        path = str(Path(tempfile.mkdtemp(prefix="t2-")) / "worker")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(128)
        return cls(path, listener.detach())

    def save(self) -> None:
        """Leave everything to the next image of this process."""
        for descriptor in (self.listener, *(descriptor for descriptor, _ in self.pending)):
            os.set_inheritable(descriptor, True)
        os.environ[STATE] = json.dumps(asdict(self))


class Worker:
    """Serve requests for one code location until the process ends.

    `change` says what changed since the code was loaded, `run` executes one run in the child,
    `error` is why the code could not be loaded.
    """

    def __init__(
        self,
        home: Path,
        state: State,
        *,
        change: Callable[[], str | None],
        run: Callable[[Request], None],
        error: str | None = None,
    ) -> None:
        self._home = home
        self._state = state
        self._listener = socket.socket(fileno=state.listener)
        self._change = change
        self._run = run
        self._error = error

    def serve(self) -> NoReturn:
        """Answer what waited for this code, then listen for ever."""
        pending, self._state.pending = self._state.pending, []
        for descriptor, request in pending:
            with socket.socket(fileno=descriptor) as connection:
                self._answer(connection, request)
        while True:
            readable, _, _ = select.select([self._listener], [], [], POLL_SECONDS)
            self._reap()
            if not self._error and (change := self._change()):
                self._reload(change)
            if readable:
                self._accept()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(5)
            try:
                with connection.makefile("rb") as lines:
                    request: Request = json.loads(lines.readline())
            except (OSError, ValueError):
                return
            connection.settimeout(None)
            if reason := self._outdated(request):
                self._state.pending.append((os.dup(connection.fileno()), request))
                self._reload(reason)
            self._answer(connection, request)

    def _outdated(self, request: Request) -> str | None:
        """Return why this request must not be served by the code in memory."""
        if "run_id" not in request:
            return None
        generation, self._state.generation = self._state.generation, request.get("generation")
        if generation is not None and generation != self._state.generation:
            return "the code server loaded anew"
        return "the last load failed" if self._error else None

    def _answer(self, connection: socket.socket, request: Request) -> None:
        try:
            if "run_id" in request:
                self._fork(connection, request)
            elif "terminate" in request:
                _send(connection, {"terminated": self._terminate(request["terminate"])})
            else:
                _send(connection, {"pid": os.getpid(), "error": self._error})
        except OSError as error:
            logger.warning("a request was given up: %s", error)

    def _fork(self, connection: socket.socket, request: Request) -> None:
        if self._error:
            _send(connection, {"error": self._error})
            return
        run_id = request["run_id"]
        try:
            lock = handover.lock_run(self._home, run_id)
        except BlockingIOError:
            _send(connection, {"error": "a process executes this run already"})
            return
        worker = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._child(worker, lock, connection, request)
        # The child's copy of the descriptor keeps the lock.
        lock.close()
        self._state.children[run_id] = pid

    def _child(self, worker: int, lock: IO[str], connection: socket.socket, request: Request) -> NoReturn:
        try:
            die_with_parent(worker)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._listener.close()
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            _send(connection, {"pid": os.getpid()})
            if _received_go(connection):
                self._run(request)
        except BaseException:
            traceback.print_exc()
        finally:
            handover.live_run_path(self._home, request["run_id"]).unlink(missing_ok=True)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)

    def _terminate(self, run_id: str) -> bool:
        done = handover.interrupt_run(self._home, run_id)
        if done:
            self._state.deadlines.setdefault(run_id, time.monotonic() + KILL_AFTER_SECONDS)
        return done

    def _reap(self) -> None:
        for run_id, pid in list(self._state.children.items()):
            if os.waitpid(pid, os.WNOHANG) != (0, 0):
                del self._state.children[run_id]
                self._state.deadlines.pop(run_id, None)
                # Still there if the child was killed.
                handover.live_run_path(self._home, run_id).unlink(missing_ok=True)
            elif self._state.deadlines.get(run_id, math.inf) < time.monotonic():
                os.kill(pid, signal.SIGKILL)

    def _reload(self, reason: str) -> NoReturn:
        logger.info("loading the code anew: %s changed", reason)
        self._state.save()
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def announce(home: Path, location: str, state: State) -> None:
    """Say where this worker listens, remove what a killed one left, and end cleanly on SIGTERM."""
    previous = handover.worker_path(home, location)
    if previous.exists() and handover.find_worker(home, location) is None:
        _remove_socket(json.loads(previous.read_text()).get("socket", ""))
    pid = os.getpid()
    record = handover.WorkerRecord(pid, handover.process_started(pid), state.socket)
    handover.write_worker(home, location, record)

    def end(signum: int, frame: object) -> NoReturn:
        _remove_socket(state.socket)
        previous.unlink(missing_ok=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)


def _remove_socket(path: str) -> None:
    directory = Path(path).parent
    if directory.name.startswith("t2-"):
        shutil.rmtree(directory, ignore_errors=True)


def _received_go(connection: socket.socket) -> bool:
    with connection.makefile("rb") as lines:
        return lines.readline() == handover.GO


def _send(connection: socket.socket, answer: dict[str, Any]) -> None:
    connection.sendall(json.dumps(answer).encode() + b"\n")
