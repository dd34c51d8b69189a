"""Dagster's storage in SQLite files."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from typing import Any

import dagster as dg
import sqlalchemy as sa
from sqlalchemy.engine import Connection


def keep_engines() -> None:
    """Keep SQLAlchemy's engine of each SQLite file, and with it the statements that it has compiled.

    Stock Dagster makes one an event, and one whenever it reads runs, ticks or sensors. 64 are kept: a run
    writes three files, the daemon one more a run.
    """
    import dagster._core.storage.event_log.sqlite.sqlite_event_log as events
    import dagster._core.storage.runs.sqlite.sqlite_run_storage as runs
    import dagster._core.storage.schedules.sqlite.sqlite_schedule_storage as schedules

    create_engine = sa.create_engine
    kept: dict[str, Any] = {}
    lock = threading.Lock()

    def engine_of(url: str, **options: Any) -> Any:
        with lock:
            if url not in kept:
                while len(kept) >= 64:
                    kept.pop(next(iter(kept)))
                kept[url] = create_engine(url, **options)
            return kept[url]

    storages: tuple[Any, ...] = (events, runs, schedules)
    for storage in storages:
        storage.create_engine = engine_of


def plan_in_one_transaction() -> None:
    """Have a new run's planned events, one for each asset and check, stored in one transaction.

    One by one they take 15 ms each: half a minute for a run of 300 tables with 1,800 tests.
    """
    from dagster._core.instance.runs.run_domain import RunDomain

    log_planned = RunDomain._log_asset_planned_events

    def log_planned_at_once(self: RunDomain, *arguments: Any) -> None:
        with one_transaction(self._instance):
            log_planned(self, *arguments)

    RunDomain._log_asset_planned_events = log_planned_at_once  # type: ignore[method-assign,assignment]


_buffer = threading.local()


def is_sqlite(instance: dg.DagsterInstance) -> bool:
    """Whether an instance keeps its events in SQLite files."""
    from dagster._core.storage.event_log import SqliteEventLogStorage

    return isinstance(instance.event_log_storage, SqliteEventLogStorage)


@contextmanager
def index_transaction(instance: dg.DagsterInstance) -> Iterator[Connection]:
    """Open a connection to SQLite's index of events that has the write lock."""
    storage: Any = instance.event_log_storage
    with storage.index_connection() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection


@contextmanager
def one_transaction(instance: dg.DagsterInstance) -> Iterator[None]:
    """Store the events of the body, in this thread, at its end and in one transaction of each SQLite file.

    Stock Dagster opens four connections and commits three times for each check that it stores: 5 ms, of which
    this leaves 1. Other databases get their events one by one.
    """
    storage: Any = instance.event_log_storage
    if not is_sqlite(instance):
        yield
        return
    store_event = _buffered_store()
    events: list[Any] = []
    _buffer.events = events
    try:
        yield
    finally:
        del _buffer.events
        # Not before: another thread that logs holds the logger's lock and waits for the storage's.
        with storage._db_lock, ExitStack() as stack:
            _buffer.connections, _buffer.stack = {}, stack
            try:
                for event in events:
                    store_event(storage, event)
            finally:
                del _buffer.connections, _buffer.stack


@cache
def _buffered_store() -> Callable[[Any, Any], None]:
    """Have SQLite's event log keep events for this thread's transaction; return how it stores one."""
    from dagster._core.storage.event_log import SqliteEventLogStorage

    connect, has_table = SqliteEventLogStorage._connect, SqliteEventLogStorage.has_table
    store_event = SqliteEventLogStorage.store_event
    present: set[tuple[str, str]] = set()

    @contextmanager
    def shared_connect(self: Any, shard: str) -> Iterator[Any]:
        connections = getattr(_buffer, "connections", None)
        if connections is None:
            with connect(self, shard) as connection:
                yield connection
            return
        if shard not in connections:
            unlocked = copy.copy(self)
            unlocked._db_lock = nullcontext()  # the transaction holds the lock, which is not reentrant
            connections[shard] = _buffer.stack.enter_context(connect(unlocked, shard))
        yield connections[shard]

    def keep_event(self: Any, event: Any) -> None:
        events = getattr(_buffer, "events", None)
        if events is None:
            store_event(self, event)
        else:
            events.append(event)

    def has_table_once(self: Any, table_name: str) -> bool:
        # Asked anew for each check, on a connection of its own.
        place = (self._base_dir, table_name)
        if place not in present and has_table(self, table_name):
            present.add(place)
        return place in present

    SqliteEventLogStorage._connect = shared_connect  # type: ignore[method-assign]
    SqliteEventLogStorage.store_event = keep_event  # type: ignore[method-assign]
    SqliteEventLogStorage.has_table = has_table_once  # type: ignore[method-assign]
    return store_event
