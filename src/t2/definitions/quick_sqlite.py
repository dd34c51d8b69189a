"""Dagster's SQLite files without a disk flush for each event, in the daemon and in runs.

Stock Dagster opens and closes connections for each event and looks at its migrations in each process.
With SQLite that is two flushes of the disk a connection (one for the commit, one for the checkpoint that the
last connection makes when it closes), and 50 ms of reading ninety migration files for each database.

What is given up: after a power failure the last seconds of events may be missing; the files stay consistent,
and the partitions built then are built again. A killed process loses no event that it has stored; those that
`one_transaction` still holds, a statement's worth, go with it, and their partitions are built again.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from alembic.script import ScriptDirectory
from sqlalchemy import event
from sqlalchemy.engine import Engine

# One idle connection a file, so that no other is the last to close.
_held: dict[str, sqlite3.Connection] = {}
_from_config = ScriptDirectory.from_config


def keep_migrations() -> None:
    """Read the migration files of each database once a process, and not once a connection."""
    known: dict[str | None, ScriptDirectory] = {}

    def from_config(config: Any) -> ScriptDirectory:
        location = config.get_main_option("script_location")
        if location not in known:
            known[location] = _from_config(config)
        return known[location]

    ScriptDirectory.from_config = from_config  # type: ignore[method-assign]


def flush_at_checkpoints() -> None:
    """Have SQLite connections of this process flush at checkpoints only; not before a fork."""
    event.listen(Engine, "connect", _connected)


def close() -> None:
    """Let go of the files, which writes their logs back."""
    event.remove(Engine, "connect", _connected)
    while _held:
        _held.popitem()[1].close()


def _connected(connection: Any, _record: object) -> None:
    if not isinstance(connection, sqlite3.Connection):
        return
    connection.execute("PRAGMA synchronous=NORMAL")
    file = connection.execute("PRAGMA database_list").fetchone()[2]
    if file and file not in _held:
        held = sqlite3.connect(file, check_same_thread=False)
        # Opens the write-ahead log, without which it would not count.
        held.execute("PRAGMA schema_version").fetchone()
        _held[file] = held
