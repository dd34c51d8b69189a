"""Talking to the warehouse server (`duckdb_server.py`), which owns the DuckDB files of a process family.

    .t2/warehouse.json   pid, start and socket of the server, and the key that a client begins with

One connection to the server is one DuckDB cursor there, or one hold of named locks. What is sent is pickled:
the socket lies in a private directory, and nothing is unpickled before the key came. Requests are answered in
order. Closing the connection is how a client interrupts its statement: the server stops the query, rolls back
and drops the temporary tables. The same happens to a client that was killed.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

from t2.runtime.handover import is_alive, process_started, write_atomically
from t2.runtime.home import home_of, running_family

# A server that died is started again within a second or so.
PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.05
# How often a thread that waits for an answer looks whether it is interrupted itself.
LOOK_SECONDS = 0.2
# In every message about a server that went away: the statement had no effect, or is safe to build again.
LOST = "the warehouse server went away"

Row = tuple[Any, ...]


class WarehouseLostError(Exception):
    """The server ended before it answered; its transactions are rolled back."""


@dataclass(frozen=True)
class ServerRecord:
    """Where a server listens. `started` is its start in clock ticks since boot, as /proc tells it."""

    pid: int
    started: int
    socket: str
    key: str

    @classmethod
    def of_this_process(cls, path: Path, key: str) -> ServerRecord:
        """Describe this process as the server that listens on `path`."""
        return cls(os.getpid(), process_started(os.getpid()), str(path), key)


def record_path(project_dir: Path) -> Path:
    """Return the file in which the server of a project says where it listens."""
    return home_of(project_dir).state / "warehouse.json"


def announce(project_dir: Path, record: ServerRecord) -> None:
    """Say where a server listens, to this user only."""
    before = os.umask(0o077)
    try:
        write_atomically(record_path(project_dir), json.dumps(asdict(record)))
    finally:
        os.umask(before)


def find_server(project_dir: Path) -> ServerRecord | None:
    """Return the server of a project if its process still lives."""
    try:
        record = ServerRecord(**json.loads(record_path(project_dir).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return record if is_alive(record.pid, record.started) else None


def is_served(project_dir: Path) -> bool:
    """Whether a server owns the project's files, or will soon: its family lives and starts it again."""
    return find_server(project_dir) is not None or (
        record_path(project_dir).exists() and running_family(home_of(project_dir)) is not None
    )


def connect(project_dir: Path, patience: float = PATIENCE_SECONDS) -> Connection:
    """Connect to the server, waiting for one that starts again; WarehouseLostError if none comes."""
    deadline = time.monotonic() + patience
    while True:
        record = find_server(project_dir)
        if record is not None:
            with suppress(OSError):
                connection = Client(record.socket, family="AF_UNIX")
                connection.send_bytes(record.key.encode())
                return connection
        elif not is_served(project_dir):
            raise WarehouseLostError(f"{LOST}: `t2 dev` has ended")
        if time.monotonic() > deadline:
            raise WarehouseLostError(f"{LOST} and did not come back within {patience:.0f} s")
        time.sleep(POLL_SECONDS)


class ServerSession:
    """A DuckDB cursor in the server, and dbt-duckdb's handle of it; connects with its first statement.

    `credentials` are dbt-duckdb's, pickled. Errors of DuckDB are raised as what they are there.
    """

    def __init__(self, project_dir: Path, credentials: bytes) -> None:
        self._project_dir = project_dir
        self._credentials = credentials
        self._connection: Connection | None = None
        self._ended = False
        self._rows: deque[Row] = deque()
        self._more = False
        self.description: list[tuple[Any, ...]] | None = None
        self.rowcount = -1

    def cursor(self) -> ServerSession:
        """Return the one cursor, as dbt-duckdb's own handle does."""
        return self

    def execute(self, sql: str, bindings: Sequence[Any] | None = None) -> ServerSession:
        """Execute SQL; its first rows come with the answer."""
        answer = self.request("execute", sql, list(bindings) if bindings is not None else None)
        self.description, self.rowcount, rows, self._more = answer
        self._rows = deque(rows)
        return self

    def fetchone(self) -> Row | None:
        """Return the next row."""
        rows = self.fetchmany(1)
        return rows[0] if rows else None

    def fetchmany(self, size: int = 1) -> list[Row]:
        """Return the next rows."""
        if self._more and len(self._rows) < size:
            self._fetch(size - len(self._rows))
        return [self._rows.popleft() for _ in range(min(size, len(self._rows)))]

    def fetchall(self) -> list[Row]:
        """Return the rows that are left."""
        if self._more:
            self._fetch(None)
        rows, self._rows = list(self._rows), deque()
        return rows

    def _fetch(self, size: int | None) -> None:
        rows, self._more = self.request("fetch", size)
        self._rows.extend(rows)

    def rollback(self) -> None:
        """Roll back; nothing is left to roll back when the server is gone."""
        if self._connection is not None:
            with suppress(WarehouseLostError):
                self.request("rollback")

    def interrupt(self) -> None:
        """Stop the running statement, from any thread: the one that waits for it gets an error."""
        self._ended = True
        if (connection := self._connection) is not None:
            with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as wire:
                wire.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the cursor: the server rolls back what is open."""
        self._ended = True
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def request(self, what: str, *arguments: Any) -> Any:
        """Have the server do something with the cursor and return what it answers."""
        if self._ended:
            raise RuntimeError("the statement was interrupted")
        try:
            connection = self._connection or self._begin()
            done, answer = _exchange(connection, (what, *arguments))
        except WarehouseLostError as error:
            if self._ended:
                raise RuntimeError("the statement was interrupted") from error
            self.close()
            raise
        except BaseException:
            self.close()  # which interrupts the statement
            raise
        if not done:
            raise _error(answer)
        return answer

    def _begin(self) -> Connection:
        self._connection = connect(self._project_dir)
        done, answer = _exchange(self._connection, ("session", self._credentials))
        if not done:
            raise _error(answer)
        _check_locks()
        return self._connection


_held = threading.local()


@contextmanager
def locked(project_dir: Path, names: Sequence[str]) -> Iterator[None]:
    """Hold named locks of the server; waits for them as long as it takes.

    A statement of this thread that goes to another server than the one that holds the locks fails.
    """
    connection = _connect_locked(project_dir, list(names))
    try:
        _held.by = [*_locks(), connection]
        yield
    finally:
        _held.by = [other for other in _locks() if other is not connection]
        connection.close()


def _connect_locked(project_dir: Path, names: list[str]) -> Connection:
    while True:
        connection = connect(project_dir)
        try:
            _exchange(connection, ("locks", names))
            return connection
        except WarehouseLostError:
            connection.close()  # the next server is asked
        except BaseException:
            connection.close()
            raise


def _locks() -> list[Connection]:
    return list(getattr(_held, "by", ()))


def _check_locks() -> None:
    """Raise if a lock of this thread was lost with the server that held it."""
    for connection in _locks():
        if connection.poll(0):
            raise WarehouseLostError(f"{LOST}, and with it the lock on this partition")


def _exchange(connection: Connection, request: tuple[Any, ...]) -> tuple[bool, Any]:
    """Send a request; return whether it was done, and the answer."""
    try:
        connection.send(request)
        while not connection.poll(LOOK_SECONDS):
            pass  # in Python from time to time, where this thread can be interrupted
        done, answer = connection.recv()
    except (OSError, EOFError) as error:
        raise WarehouseLostError(LOST) from error
    return done, answer


def _error(failure: tuple[str, str]) -> Exception:
    """Make the error that the server had: one of DuckDB's, else a RuntimeError."""
    import duckdb

    name, message = failure
    known = getattr(duckdb, name, None)
    if isinstance(known, type) and issubclass(known, duckdb.Error):
        return known(message)
    return RuntimeError(message)
