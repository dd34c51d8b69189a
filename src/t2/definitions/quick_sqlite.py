"""Dagster's SQLite files without a disk flush for each event, in the daemon and in runs.

Stock Dagster opens and closes connections for each event and looks at its migrations in each process.
With SQLite that is two flushes of the disk a connection (one for the commit, one for the checkpoint that the
last connection makes when it closes), and 50 ms of reading ninety migration files for each database.
Here a connection that is closed waits for whoever opens the file next.

What is given up: after a power failure the last seconds of events may be missing; the files stay consistent,
and the partitions built then are built again. A killed process loses no event that it has stored; those that
`one_transaction` still holds, a statement's worth, go with it, and their partitions are built again.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from alembic.script import ScriptDirectory
from sqlalchemy import event
from sqlalchemy.engine import Dialect, Engine

# Of how many files idle connections are kept: a run writes three, the daemon one more for each run.
FILES = 64

_from_config = ScriptDirectory.from_config
_lock = threading.Lock()
# By engine and file, the one that was used last at the end.
_idle: OrderedDict[Hashable, list[_Kept]] = OrderedDict()
_keeping = False


class _Kept(sqlite3.Connection):
    """A connection that waits for its next use instead of being closed."""

    place: Hashable = None
    closed = False  # by who used it last

    def close(self) -> None:
        """Put the connection where the next one is taken from; as in sqlite3, a second time does nothing."""
        if self.closed:
            return
        if self.in_transaction:
            self.rollback()
        left: list[_Kept] = []
        with _lock:
            self.closed = True
            if _keeping:
                _idle.setdefault(self.place, []).append(self)
                _idle.move_to_end(self.place)
                while len(_idle) > FILES:
                    left += _idle.popitem(last=False)[1]
            else:
                left.append(self)
        for connection in left:
            sqlite3.Connection.close(connection)


def keep_migrations() -> None:
    """Read the migration files of each database once a process, and not once a connection."""
    known: dict[str | None, ScriptDirectory] = {}

    def from_config(config: Any) -> ScriptDirectory:
        location = config.get_main_option("script_location")
        if location not in known:
            known[location] = _from_config(config)
        return known[location]

    ScriptDirectory.from_config = from_config  # type: ignore[method-assign]


def keep_connections() -> None:
    """Have SQLite connections of this process kept, and flush at checkpoints only; not before a fork."""
    global _keeping  # noqa: PLW0603
    _keeping = True
    event.listen(Engine, "do_connect", _connect)


def close() -> None:
    """Let go of the files, which writes their logs back."""
    global _keeping  # noqa: PLW0603
    event.remove(Engine, "do_connect", _connect)
    with _lock:
        _keeping = False
        left = [connection for connections in _idle.values() for connection in connections]
        _idle.clear()
    for connection in left:
        sqlite3.Connection.close(connection)


def _connect(
    dialect: Dialect, _record: object, arguments: list[Any], options: dict[str, Any]
) -> sqlite3.Connection | None:
    """Return a connection to a SQLite file; what an engine sets on its connections stays with it."""
    if dialect.name != "sqlite":
        return None
    place = (dialect, arguments[0])
    with _lock:
        waiting = _idle.get(place)
        if waiting:
            kept = waiting.pop()
            kept.closed = False
            return kept
    options = {**options, "check_same_thread": False, "factory": _Kept}
    connection: _Kept = sqlite3.connect(*arguments, **options)
    connection.place = place
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection
