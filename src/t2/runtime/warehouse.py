"""The embedded warehouse has one process that has its file open: `t2 dev`'s server, else each in its turn.

DuckDB locks its file for one process as long as that has it open; a second one fails at once. Where a family
runs, its warehouse server (`duckdb_server.py`) has the file open and executes for all others. Without one, a
process takes its turn (`turns.py`), opens the file and closes it again. Other warehouses need neither.
Measured in docs/decisions/002 and 008.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from t2.errors import DbtError
from t2.runtime import duckdb_client
from t2.runtime.turns import POLL_SECONDS, Turn, is_locked_out

if TYPE_CHECKING:
    from t2.runtime.warm import Warm

# Without a server, somebody who has the file open in a shell or notebook is given this long to close it.
FOREIGN_SECONDS = 60.0

_holds: dict[Path, _Hold] = {}
_guard = threading.Lock()


@contextmanager
def session(warm: Warm, *, foreign_seconds: float = FOREIGN_SECONDS) -> Iterator[None]:
    """Hold the warehouse while the body runs; connections are closed at the end of the outermost session.

    Re-entrant, and shared by the threads of the process. Without a server, DbtError if a process that is not
    T2's keeps the DuckDB file open for longer than `foreign_seconds`.
    """
    hold = _hold(warm.file)
    with hold.lock:
        if hold.sessions == 0:
            hold.begin(warm, foreign_seconds)
        hold.sessions += 1
    try:
        yield
    finally:
        with hold.lock:
            hold.sessions -= 1
            if hold.sessions == 0:
                hold.end(warm)


@contextmanager
def alone(warm: Warm, names: Collection[str]) -> Iterator[None]:
    """Hold these names while the body runs: no other thread, and with a server no other process, has one.

    Inside of a session. DuckDB needs it for builds of the same partition: two inserts into an empty partition
    do not conflict, and both are kept. DbtError if the server does not answer.
    """
    hold = _hold(warm.file)
    if hold.served_by is None:
        with hold.names.held(names):
            yield
        return
    try:
        with duckdb_client.locked(hold.served_by, sorted(names)):
            yield
    except duckdb_client.WarehouseLostError as error:
        raise DbtError(str(error), where=str(warm.file)) from error


class _Names:
    """Names that threads of this process hold."""

    def __init__(self) -> None:
        self._held: set[str] = set()
        self._changed = threading.Condition()

    @contextmanager
    def held(self, names: Collection[str]) -> Iterator[None]:
        """Wait until nobody has one of them, and hold them all."""
        wanted = set(names)
        with self._changed:
            self._changed.wait_for(lambda: not wanted & self._held)
            self._held |= wanted
        try:
            yield
        finally:
            with self._changed:
                self._held -= wanted
                self._changed.notify_all()


class _Hold:
    """How this process gets at one warehouse; sessions are counted for all kinds."""

    def __init__(self, file: Path | None) -> None:
        self.lock = threading.RLock()
        self.names = _Names()
        self.sessions = 0
        self.pid = os.getpid()
        self.served_by: Path | None = None
        self._turn = Turn(file) if file else None

    def begin(self, warm: Warm, foreign_seconds: float) -> None:
        """Go through the server if there is one, else wait for the turn and open the file."""
        if self._turn is None:
            return
        project_dir = Path(warm.project.root)
        self.served_by = project_dir if duckdb_client.is_served(project_dir) else None
        warm.serve(self.served_by)
        if self.served_by is not None:
            return
        self._turn.take()
        try:
            _connect(warm, foreign_seconds)
        except BaseException:
            self._turn.give_up()
            raise

    def end(self, warm: Warm) -> None:
        """Close what is open and end the turn."""
        try:
            warm.close()
        finally:
            if self._turn is not None:
                self._turn.give_up()


def _hold(file: Path | None) -> _Hold:
    path = file.resolve() if file else Path()
    with _guard:
        hold = _holds.get(path)
        if hold is None or hold.pid != os.getpid():
            hold = _holds[path] = _Hold(file.resolve() if file else None)
        return hold


def _connect(warm: Warm, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            warm.query("select 1")
            return
        except DbtError as error:
            if not is_locked_out(str(error)):
                raise
            warm.close()
            if time.monotonic() > deadline:
                raise DbtError(
                    f"another program has kept the DuckDB file open for {patience:.0f} s: {error.message}",
                    where=str(warm.file),
                    hint="close it there; T2's own processes take turns",
                ) from error
            time.sleep(POLL_SECONDS[1])
