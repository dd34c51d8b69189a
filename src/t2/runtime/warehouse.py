"""The embedded warehouse has one writer process at a time: T2's processes take turns at a DuckDB file.

DuckDB locks its file for one process as long as that has it open; a second one fails at once. So each process
takes `<file>.t2lock` before it opens the file and holds it until it has closed the file again. The lock is
the kernel's and goes with the process. Other warehouses need no turns. Measured in
docs/decisions/002-duckdb-one-writer.md.
"""

from __future__ import annotations

import fcntl
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from t2.errors import DbtError
from t2.runtime.warm import Warm

POLL_SECONDS = (0.005, 0.05)
# Somebody who has the file open in a shell or notebook is given this long to close it.
FOREIGN_SECONDS = 60.0

_turns: dict[Path, _Turn] = {}
_guard = threading.Lock()


@contextmanager
def session(warm: Warm, *, foreign_seconds: float = FOREIGN_SECONDS) -> Iterator[None]:
    """Hold the warehouse while the body runs; connections are closed at the end of the outermost session.

    Re-entrant, and shared by the threads of the process. DbtError if a process that is not T2's keeps the
    DuckDB file open for longer than `foreign_seconds`.
    """
    turn = _turn(warm.file)
    with turn.lock:
        if turn.sessions == 0:
            turn.take()
            try:
                _connect(warm, foreign_seconds)
            except BaseException:
                turn.give_up()
                raise
        turn.sessions += 1
    try:
        yield
    finally:
        with turn.lock:
            turn.sessions -= 1
            if turn.sessions == 0:
                try:
                    warm.close()
                finally:
                    turn.give_up()


class _Turn:
    """This process's turn at one file; no file means no turns, but sessions are counted all the same."""

    def __init__(self, file: Path | None) -> None:
        self.lock = threading.RLock()
        self.sessions = 0
        self.pid = os.getpid()
        self._file = file
        self._held: int | None = None

    def take(self) -> None:
        """Wait for the turn.

        Who waits first waits at the gate: a process that ends its turn and wants the next one finds the gate
        closed and comes after the one that waited.
        """
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        gate = _locked(self._file.with_name(f"{self._file.name}.t2gate"))
        try:
            self._held = _locked(self._file.with_name(f"{self._file.name}.t2lock"))
        finally:
            os.close(gate)

    def give_up(self) -> None:
        """End the turn."""
        if self._held is not None:
            os.close(self._held)
            self._held = None


def _turn(file: Path | None) -> _Turn:
    path = file.resolve() if file else Path()
    with _guard:
        turn = _turns.get(path)
        if turn is None or turn.pid != os.getpid():
            turn = _turns[path] = _Turn(file.resolve() if file else None)
        return turn


def _locked(path: Path) -> int:
    """Return an open descriptor that holds the lock on a file; closing it ends the lock.

    Polled, so that a thread that waits can be interrupted.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    wait = POLL_SECONDS[0]
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            time.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(wait * 2, POLL_SECONDS[1])
        except BaseException:
            os.close(descriptor)
            raise


def _connect(warm: Warm, patience: float) -> None:
    if warm.file is None:
        return
    deadline = time.monotonic() + patience
    while True:
        try:
            warm.query("select 1")
            return
        except DbtError as error:
            if "Could not set lock" not in str(error):
                raise
            warm.close()
            if time.monotonic() > deadline:
                raise DbtError(
                    f"another program has kept the DuckDB file open for {patience:.0f} s: {error.message}",
                    where=str(warm.file),
                    hint="close it there; T2's own processes take turns",
                ) from error
            time.sleep(POLL_SECONDS[1])
