"""A DuckDB file that the warehouse server owns: opened once, for as long as nobody else wants a turn.

Closed and opened again in two cases, each as soon as no session is open: somebody waits for a turn (a
program that loads raw tables, `t2 sql --copy`, plain dbt behind `flock`), or a client comes with other
settings of the dbt profile. Sessions that come meanwhile wait, unless those that are open do nothing: they
may be waiting for the new one, since dbt and T2 have locks of their own that are held across sessions.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from t2.runtime.turns import Turn, is_locked_out, name_holder

# How often a file that somebody else has open is tried, and the gate looked at.
RETRY_SECONDS = 0.2
GATE_SECONDS = 0.05
ALIVE_SECONDS = 0.5
# A session that has done nothing for so long may be waiting for another one.
QUIET_SECONDS = 1.0

Say = Callable[[str], None]
Alive = Callable[[], bool]


class ClientGoneError(Exception):
    """The client hung up before its session began."""


class Session:
    """A client's cursor: dbt-duckdb's environment and handle."""

    environment: Any = None
    handle: Any = None

    def __init__(self) -> None:
        self._quiet_since = time.monotonic()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count as at work while the body runs."""
        self._quiet_since = math.inf
        try:
            yield
        finally:
            self._quiet_since = time.monotonic()

    def is_quiet(self) -> bool:
        """Whether it has had nothing to do for long."""
        return time.monotonic() - self._quiet_since > QUIET_SECONDS


class OwnedFile:
    """One file and the sessions of its clients; `say` tells who keeps the file from being opened."""

    def __init__(self, path: Path, say: Say) -> None:
        self._turn = Turn(path)
        self._say = say
        self._changed = threading.Condition()
        self._sessions: set[Session] = set()
        self._opening = False
        self._leaving = False  # closed as soon as the last session ends
        self._shut = False
        self._environment: Any = None
        self._credentials: Any = None
        self._inode = 0
        threading.Thread(target=self._watch_gate, name="gate", daemon=True).start()

    @contextmanager
    def session(self, credentials: Any, alive: Alive) -> Iterator[Session]:
        """Open a cursor of the file's.

        What the session leaves open is rolled back. ClientGoneError when it is not `alive` any more.
        """
        session = self._enter(credentials, alive)
        try:
            session.handle = session.environment.handle()
            try:
                yield session
            finally:
                _end(session.handle)
        finally:
            with self._changed:
                self._sessions.discard(session)
                self._changed.notify_all()

    def shut(self, patience: float) -> None:
        """Close the file once its sessions have ended, or when patience does; no other begins."""
        with self._changed:
            self._shut = True
            self._changed.wait_for(lambda: not self._sessions, patience)
            self._close()

    def _enter(self, credentials: Any, alive: Alive) -> Session:
        """Count a session in, once the file is open with these credentials."""
        with self._changed:
            while not self._is_open_for(credentials):
                if not alive():
                    raise ClientGoneError
                if self._may_open():
                    self._open(credentials, alive)
                else:
                    self._changed.wait(ALIVE_SECONDS)
            session = Session()
            session.environment = self._environment
            self._sessions.add(session)
            return session

    def _is_open_for(self, credentials: Any) -> bool:
        """Whether a session may begin; arranges for the file to be opened anew when it is another's."""
        if self._environment is None or self._shut:
            return False
        if self._credentials == credentials and self._inode == _inode(self._turn.file):
            return not self._leaving or self._stands_still()
        self._leaving = True
        self._close_if_idle()
        return False

    def _stands_still(self) -> bool:
        return bool(self._sessions) and all(session.is_quiet() for session in self._sessions)

    def _may_open(self) -> bool:
        return self._environment is None and not self._opening and not self._leaving and not self._shut

    def _open(self, credentials: Any, alive: Alive) -> None:
        """Open the file in this thread, while the others can come and go."""
        self._opening = True
        self._changed.release()
        environment = None
        try:
            self._turn.take()
            environment = self._connect(credentials, alive)
        finally:
            self._changed.acquire()
            self._opening = False
            if environment is None:
                self._turn.give_up()
            else:
                self._environment, self._credentials = environment, credentials
                self._inode = _inode(self._turn.file)
            self._changed.notify_all()

    def _connect(self, credentials: Any, alive: Alive) -> Any:
        from t2.runtime._dbt import duckdb as dbt_duckdb  # not installed where the warehouse is another

        told = ""
        started = time.monotonic()
        while True:
            environment = dbt_duckdb.open_here(credentials)
            try:
                environment.handle().close()
            except Exception as error:
                if not is_locked_out(str(error)):
                    raise
                holder = name_holder(str(error))
                if holder != told:
                    self._say(f"{self._turn.file.name} is kept open by {holder}: what needs it waits")
                    told = holder
                if not alive():
                    raise ClientGoneError from None
                time.sleep(RETRY_SECONDS)
                continue
            if told:
                self._say(f"{self._turn.file.name} is free again after {time.monotonic() - started:.0f} s")
            return environment

    def _watch_gate(self) -> None:
        while True:
            time.sleep(GATE_SECONDS)
            with self._changed:
                if self._environment is not None and not self._leaving and self._turn.is_wanted():
                    self._leaving = True
                if self._leaving:
                    self._close_if_idle()

    def _close_if_idle(self) -> None:
        if not self._sessions:
            self._close()
            self._leaving = False
            self._changed.notify_all()

    def _close(self) -> None:
        if self._environment is not None:
            self._environment.close()
            self._environment = None
        self._turn.give_up()


def _end(handle: Any) -> None:
    """Roll back and close; an error of that says only that there is nothing to roll back."""
    with suppress(Exception):
        handle.rollback()
    with suppress(Exception):
        handle.close()


def _inode(file: Path) -> int:
    try:
        return file.stat().st_ino
    except FileNotFoundError:
        return 0
