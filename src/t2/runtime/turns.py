"""Turns at a DuckDB file, which one process at a time can have open.

Two files beside it are locked with the kernel's `flock`, so a dead process holds neither:

    <file>.t2lock   held as long as the file is open
    <file>.t2gate   held while waiting for the other one

Who waits first waits at the gate: a process that ends its turn and wants the next one finds the gate
closed and comes after the one that waited. The gate also tells the warehouse server, which keeps its turn
while nobody else wants one, that somebody does.
"""

from __future__ import annotations

import fcntl
import os
import random
import re
import time
from pathlib import Path

POLL_SECONDS = (0.005, 0.05)

LOCKED = "Could not set lock"
HOLDER = re.compile(r"Conflicting lock is held in (\S+)?.*?PID (\d+)")


class Turn:
    """This process's turn at one file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._gate = file.with_name(f"{file.name}.t2gate")
        self._lock = file.with_name(f"{file.name}.t2lock")
        self._held: int | None = None

    @property
    def held(self) -> bool:
        """Whether it is this process's turn."""
        return self._held is not None

    def take(self) -> None:
        """Wait for the turn, in the order of arrival."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        gate = _locked(self._gate)
        try:
            self._held = _locked(self._lock)
        finally:
            os.close(gate)

    def give_up(self) -> None:
        """End the turn."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def is_wanted(self) -> bool:
        """Return whether somebody waits at the gate."""
        gate = _open(self._gate)
        try:
            fcntl.flock(gate, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(gate)
        return False


def is_locked_out(message: str) -> bool:
    """Whether DuckDB says that a process has the file open which did not take a turn."""
    return LOCKED in message


def name_holder(message: str) -> str:
    """Return who DuckDB says has the file open: program and pid."""
    found = HOLDER.search(message)
    if not found:
        return "another program"
    return f"{Path(found[1]).name if found[1] else 'a program'} (pid {found[2]})"


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _locked(path: Path) -> int:
    """Return an open descriptor that holds the lock on a file; closing it ends the lock.

    Polled, so that a thread that waits can be interrupted.
    """
    descriptor = _open(path)
    wait = POLL_SECONDS[0]
    try:
        while not _lock(descriptor):
            time.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(wait * 2, POLL_SECONDS[1])
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
