"""The warm worker: one process that has loaded everything and forks a child for each run.

It knows neither Dagster nor dbt: `definitions/worker.py` gives it what to load and what a child does.
Fork is safe here because the worker has one thread and no connection to a database or code server.
What changed on disk is never run from memory: the worker replaces itself (exec) before it forks, while
the request waits; the listening socket and the children stay with the process.

The worker looks at its children every second. One that uses too much memory is killed. Of one that ended
otherwise than by itself another child tells why (`fail`), while it holds the lock of the run.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn

from t2.runtime import handover, memory
from t2.runtime.memory import MIB
from t2.runtime.parent_death import die_with_parent

STATE = "T2_WORKER_STATE"
POLL_SECONDS = 1.0
# A run that was asked to end and is stuck in a query is killed after this; Dagster's monitoring closes it.
KILL_AFTER_SECONDS = 10.0
# Telling why a run failed takes some tenths of a second, more if the database is busy.
TELL_SECONDS = 60.0
# An idle worker that has grown by so much since it loaded replaces itself.
GROWTH = 256 * MIB

logger = logging.getLogger("t2.worker")

Request = dict[str, Any]


@dataclass
class Child:
    """A process that executes a run, or tells why the run failed (`tells`).

    It is killed at `deadline` (monotonic seconds); `killed` says why the worker killed it.
    """

    pid: int
    request: Request
    started: float
    tells: bool = False
    deadline: float | None = None
    killed: str | None = None


@dataclass
class State:
    """What survives when the worker replaces itself: sockets, children, the code server it follows."""

    socket: str
    listener: int
    location: str = ""
    generation: str | None = None
    children: dict[str, Child] = field(default_factory=dict)
    pending: list[tuple[int, Request]] = field(default_factory=list)

    @classmethod
    def restore_or_open(cls) -> State:
        """Take over from the code before, or open a socket in a short private directory.

        Short because a socket's path has at most 107 bytes on Linux, and a project's may be longer.
        """
        if text := os.environ.pop(STATE, None):
            saved = json.loads(text)
            children = {run_id: Child(**child) for run_id, child in saved.pop("children").items()}
            return cls(**saved, children=children)
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

    `change` says what changed since the code was loaded, `run` executes one run in the child, `fail` records
    that a run failed and why, `error` is why the code could not be loaded.
    """

    def __init__(
        self,
        home: Path,
        state: State,
        *,
        change: Callable[[], str | None],
        run: Callable[[Request], None],
        fail: Callable[[Request, str], None],
        error: str | None = None,
    ) -> None:
        self._home = home
        self._state = state
        self._listener = socket.socket(fileno=state.listener)
        self._change = change
        self._run = run
        self._fail = fail
        self._error = error
        self._size = memory.resident(os.getpid())
        self._look_at = 0.0

    def serve(self) -> NoReturn:
        """Answer what waited for this code, then listen for ever."""
        _announce(self._home, self._state, loading=False)
        pending, self._state.pending = self._state.pending, []
        for descriptor, request in pending:
            with socket.socket(fileno=descriptor) as connection:
                self._answer(connection, request)
        ended = _wake_for_children()
        while True:
            readable, _, _ = select.select([self._listener, ended[0]], [], [], POLL_SECONDS)
            if ended[0] in readable:
                ended[0].recv(4096)
            self._reap()
            if (now := time.monotonic()) >= self._look_at:
                self._look_at = now + POLL_SECONDS
                handover.beat(self._home, self._state.location)
                self._bound_memory()
            if not self._error and (change := self._change()):
                self._reload(f"{change} changed")
            if self._listener in readable:
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
        return "it could not be loaded before" if self._error else None

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
        try:
            lock = handover.lock_run(self._home, request["run_id"])
        except BlockingIOError:
            _send(connection, {"error": "a process executes this run already"})
            return

        def execute() -> None:
            handover.note_process(lock)
            try:
                _send(connection, {"pid": os.getpid()})
                if not _received_go(connection):
                    return
            except OSError:
                return  # the launcher has gone
            handover.note_begun(lock)
            self._run(request)

        self._start(lock, request, execute)

    def _start(
        self, lock: IO[str], request: Request, work: Callable[[], None], *, tells: bool = False
    ) -> None:
        """Fork a child that does the work; its copy of the descriptor keeps the lock."""
        worker = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._child(worker, work)
        lock.close()
        now = time.monotonic()
        deadline = now + TELL_SECONDS if tells else None
        self._state.children[request["run_id"]] = Child(pid, request, now, tells, deadline)

    def _child(self, worker: int, work: Callable[[], None]) -> NoReturn:
        code = 1
        try:
            die_with_parent(worker)
            memory.be_killed_first()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            self._listener.close()
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _terminate(self, run_id: str) -> bool:
        done = handover.interrupt_run(self._home, run_id)
        child = self._state.children.get(run_id)
        if done and child and child.deadline is None:
            child.deadline = time.monotonic() + KILL_AFTER_SECONDS
        return done

    def _reap(self) -> None:
        for run_id, child in list(self._state.children.items()):
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                del self._state.children[run_id]
                if not child.tells:
                    _log_end(run_id, child, usage)
                self._ended(run_id, child, status)
            elif child.deadline is not None and child.deadline < time.monotonic():
                _kill(child.pid)

    def _ended(self, run_id: str, child: Child, status: int) -> None:
        """Clean up behind a child; if it did not end by itself, have the failure of its run recorded."""
        cause = child.killed or _cause(status)
        if cause and not child.tells and handover.has_begun(self._home, run_id):
            with suppress(BlockingIOError):
                lock = handover.lock_run(self._home, run_id)
                self._start(lock, child.request, lambda: self._fail(child.request, cause), tells=True)
            return
        handover.live_run_path(self._home, run_id).unlink(missing_ok=True)

    def _bound_memory(self) -> None:
        """Kill the runs that use more than they may; replace this process when it is idle and has grown."""
        for run_id, child in self._state.children.items():
            limit = child.request.get("max_memory_mb")
            if limit and not child.tells and (used := memory.used_beyond(child.pid, limit * MIB)):
                child.killed = _too_much(used, limit)
                logger.warning("run %s: %s", run_id, child.killed)
                _kill(child.pid)
        grown = memory.resident(os.getpid()) - self._size
        if grown > GROWTH and not self._state.children:
            self._reload(f"this process has grown by {grown // MIB} MB")

    def _reload(self, reason: str) -> NoReturn:
        logger.info("loading the code anew: %s", reason)
        _announce(self._home, self._state, loading=True)
        self._state.save()
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def announce(home: Path, location: str, state: State) -> None:
    """Say where this worker will listen, remove what a killed one left, and end cleanly on SIGTERM."""
    previous = handover.worker_path(home, location)
    if previous.exists() and handover.find_worker(home, location) is None:
        _remove_socket(json.loads(previous.read_text()).get("socket", ""))
    state.location = location
    _announce(home, state, loading=True)

    worker = os.getpid()

    def end(signum: int, frame: object) -> NoReturn:
        if os.getpid() == worker:  # and not a child that has just been forked
            _remove_socket(state.socket)
            previous.unlink(missing_ok=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)


def _announce(home: Path, state: State, *, loading: bool) -> None:
    pid = os.getpid()
    record = handover.WorkerRecord(pid, handover.process_started(pid), state.socket, loading)
    handover.write_worker(home, state.location, record)


def _wake_for_children() -> tuple[socket.socket, socket.socket]:
    """Return a pair of which the first can be read when a child has ended; both have to be kept."""
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda signum, frame: None)
    return reading, writing


def _kill(pid: int) -> None:
    """Kill a child and what it started."""
    for member in memory.family(pid):
        with suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)


def _cause(status: int) -> str | None:
    """Say how a child ended, None if it ended by itself."""
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL:
        return "The process of the run was killed (SIGKILL), as the kernel does when memory runs out."
    if code < 0:
        return f"The process of the run crashed with {signal.Signals(-code).name}."
    return "The process of the run could not execute it; the worker's log says why." if code else None


def _too_much(used: int, limit: int) -> str:
    return (
        f"The process of the run was killed: it used {used // MIB} MB of memory and may use {limit} MB. "
        "Build fewer partitions in a run (meta.t2.backfill.partitions_per_run) or fewer tables at once "
        "(threads), or raise max_memory_mb of the run launcher in dagster.yaml."
    )


def _log_end(run_id: str, child: Child, usage: resource.struct_rusage) -> None:
    seconds, cpu = time.monotonic() - child.started, usage.ru_utime + usage.ru_stime
    peak = usage.ru_maxrss // 1024  # in kB on Linux
    logger.info("run %s ended after %.1f s, %.1f s of CPU, at most %d MB", run_id, seconds, cpu, peak)


def _remove_socket(path: str) -> None:
    directory = Path(path).parent
    if directory.name.startswith("t2-"):
        shutil.rmtree(directory, ignore_errors=True)


def _received_go(connection: socket.socket) -> bool:
    with connection.makefile("rb") as lines:
        return lines.readline() == handover.GO


def _send(connection: socket.socket, answer: dict[str, Any]) -> None:
    connection.sendall(json.dumps(answer).encode() + b"\n")
