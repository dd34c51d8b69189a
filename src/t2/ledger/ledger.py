"""The ledger: what has happened, one row a (table, partition), following Dagster's event log."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection

from t2.ledger import history, log, wipes
from t2.ledger.apply import apply
from t2.ledger.arrays import Arrays
from t2.ledger.backfill_store import Backfills
from t2.ledger.backfills import Backfill, wanted
from t2.ledger.durations import Pace, pace
from t2.ledger.events import Event, parse
from t2.ledger.gates import Gate, gates
from t2.ledger.pauses import Pauses
from t2.ledger.schema import cursor, prepare, touched
from t2.ledger.storage import open_engine
from t2.planning.state import State
from t2.project.model import Project


@dataclass(frozen=True)
class _Cursor:
    """The row of `t2_cursor`."""

    id: int
    version: int
    position: int
    mark_id: int
    mark: str
    seq: int
    epoch: int
    rebuild_to: int


class Ledger:
    """Follows one Dagster event log, in the database at `url` (see `storage.locate`).

    Any number of processes may follow at once. `settle_seconds`: how long an id that is missing in
    PostgreSQL's log may still turn up. Raises StorageError if Dagster has no event log there yet.
    """

    def __init__(self, url: URL | str, *, settle_seconds: float = 10.0) -> None:
        self.engine = open_engine(sa.make_url(url))
        self._settle_seconds = settle_seconds
        self._tail = log.Tail(settle_seconds)
        self._epoch = 0
        self._arrays: Arrays | None = None
        self._lock = threading.RLock()
        with self._writing() as connection:
            prepare(connection)
        self.backfills = Backfills(self.engine)
        self.pauses = Pauses(self.engine)
        self._orders_seq = (-1, -1)
        self.planned_backfills: list[Backfill] = []  # those that the last state knows of

    @property
    def cursor(self) -> int:
        """The event id up to which everything is applied."""
        with self.engine.begin() as connection:
            return _read_cursor(connection).position

    def head(self) -> int:
        """Return the highest event id in the log: `as_of` of a build that reads its inputs now."""
        with self.engine.begin() as connection:
            return log.head(connection)

    def has_news(self) -> bool:
        """Whether the log may hold something that this process has not applied, or an order changed; cheap.

        With PostgreSQL that is also so while an id below the head is missing. Wipes do not show.
        """
        return (
            bool(self._tail.gaps)
            or self.head() != self._tail.seen
            or self._read_orders_seq() != self._orders_seq
        )

    def follow(self, limit: int = 5000, on_page: Callable[[int, int], None] | None = None) -> int:
        """Catch up with the log in pages of `limit` rows; return how many rows were new.

        Each page is one transaction. `on_page` is told (position, head) after each. A log that is not the one
        that was followed before (wiped, restored, replaced) makes the ledger start again from nothing.
        """
        total = 0
        with self._lock:
            while True:
                page = self._next_page(limit)
                if page is None:  # another process was faster, or the log is another one
                    continue
                total += len(page.rows)
                if on_page is not None and page.rows:
                    on_page(page.tail.seen, self.head())
                if not page.more:
                    return total

    def rebuild(self) -> None:
        """Forget everything and follow the log from its beginning."""
        with self._lock:
            self._restart()
            self.follow()

    def state(self, project: Project, now: datetime) -> State:
        """Return the state of all tables and sources at `now` (aware), as far as the log was followed.

        What did not change since the last call is the same object as then.
        """
        with self._lock:
            self._finish_rebuild()
            if self._arrays is None or self._arrays.project.fingerprint != project.fingerprint:
                self._arrays = Arrays(project)
            with self._reading() as connection:
                at = _read_cursor(connection)
                state = self._arrays.refresh(
                    connection, now, position=at.position, seq=at.seq, epoch=at.epoch
                )
            self._orders_seq = self._read_orders_seq()
            state = replace(state, paused=self.pauses.paused(now.timestamp()))
            running = self.planned_backfills = self.backfills.running()
            if not running:
                return state
            lengths = {key: past.count for key, past in state.tables.items()}
            return replace(state, wanted=wanted(running, project, lengths))

    def _read_orders_seq(self) -> tuple[int, int]:
        """Return the numbers of the newest changes to what people asked for."""
        return self.backfills.seq(), self.pauses.seq()

    def active_runs(self) -> list[history.ActiveRun]:
        """Return the runs that have not ended and build something, oldest first."""
        with self._reading() as connection:
            return history.active_runs(connection)

    def active_run_ids(self) -> set[str]:
        """Return the runs that have not ended, also those that are not known to build anything."""
        with self._reading() as connection:
            return history.active_run_ids(connection)

    def planned(self, run_ids: Collection[str]) -> set[tuple[str, str, str]]:
        """Return the (run id, table, partition) triples that runs are known to build."""
        with self._reading() as connection:
            return history.planned(connection, run_ids)

    def landing(self, table: str, partition: str = "") -> history.Landing | None:
        """Return the newest materialization of a partition."""
        with self._reading() as connection:
            return history.landing(connection, table, partition)

    def attempts(
        self, table: str, partition: str = "", upstreams: Collection[str] = ()
    ) -> list[history.Attempt]:
        """Return the attempts on a partition that failed, newest first.

        What the table reads (`upstreams`) tells a partition that was skipped from one that its run died on.
        """
        with self._reading() as connection:
            return history.attempts(connection, table, partition, upstreams)

    def checks(self, table: str, partition: str = "") -> list[history.Check]:
        """Return the newest evaluation of each check on a partition, failed ones first."""
        with self._reading() as connection:
            return history.checks_of(connection, table, partition)

    def pace(self, table: str) -> Pace:
        """Return how long the recent builds of a table took."""
        with self._reading() as connection:
            return pace(connection, table)

    def paces(self, project: Project) -> dict[str, Pace]:
        """Return how long the recent builds of all tables took."""
        with self._reading() as connection:
            return {key: pace(connection, key) for key in project.tables}

    def last_event_at(self) -> float | None:
        """Return when the newest thing that the ledger knows of happened, in epoch seconds."""
        with self._reading() as connection:
            return history.last_event_at(connection)

    def fingerprints(self, table: str) -> dict[str, str]:
        """Return the fingerprint that was last reported of each materialized partition of a source."""
        with self._reading() as connection:
            return history.fingerprints(connection, table)

    def failure(self, key: str, partition: str) -> str | None:
        """Return the error of the newest failed attempt on a partition."""
        attempts = self.attempts(key, partition)
        return attempts[0].error if attempts else None

    def failed_checks(
        self, project: Project, key: str, partition: str, reader: str | None = None
    ) -> list[str]:
        """Return the checks that hold back readers of a partition, each with its count of rows.

        With `reader`: only those that name that table; without, only those that hold back all readers.
        """
        landed = self.landing(key, partition)
        built = landed.event_id if landed else 0
        closed = self.gates(project, key)
        return [
            gate.text(partition)
            for gate in closed
            if gate.shuts(partition, built) and (reader in gate.held if gate.held else reader is None)
        ]

    def gates(self, project: Project, key: str) -> list[Gate]:
        """Return the checks of a table that failed and hold back its readers."""
        with self._reading() as connection:
            return gates(connection, project, [key]).get(key, [])

    def run_of(self, key: str, partition: str) -> str | None:
        """Return the id of the run that landed a partition."""
        landed = self.landing(key, partition)
        return landed.run_id if landed else None

    def _next_page(self, limit: int) -> log.Page | None:
        """Read and apply one page; None if it has to be read once more."""
        with self.engine.begin() as connection:
            at = _read_cursor(connection)
            if at.epoch != self._epoch or at.position > self._tail.position:
                self._tail, self._epoch = log.Tail(self._settle_seconds, at.position), at.epoch
            same = _same_log(connection, at)
            if same:
                page = self._tail.read(connection, limit)
                fresh, vanished = wipes.news(connection)
        if not same:
            self._restart(only_if=at)
            return None
        events = [event for row in page.rows if row[3] and (event := parse(*row[:4])) is not None]
        moved = page.tail.position > at.position
        if events or moved or fresh or vanished:
            with self._writing() as connection:
                if _read_cursor(connection, lock=True) != at:
                    return None
                self._write(connection, at, page, events, fresh, vanished)
        self._tail = page.tail
        return page

    def _write(
        self,
        connection: Connection,
        at: _Cursor,
        page: log.Page,
        events: list[Event],
        fresh: dict[str, float],
        vanished: list[str],
    ) -> None:
        wipes.wipe(connection, fresh)
        tables = apply(connection, events, wipes.known(connection)) | wipes.vanish(connection, vanished)
        seq = at.seq + 1
        _touch(connection, tables, seq, 0)
        _touch(connection, set(fresh), seq, seq)
        mark_id, mark = page.mark or (at.mark_id, at.mark)
        values = {
            "position": max(at.position, page.tail.position),
            "mark_id": mark_id,
            "mark": mark,
            "seq": seq,
        }
        connection.execute(cursor.update().values(values))

    def _restart(self, only_if: _Cursor | None = None) -> None:
        with self._writing() as connection:
            at = _read_cursor(connection, lock=True)
            if only_if is not None and at != only_if:
                return
            wipes.empty(connection)
            connection.execute(touched.delete())
            connection.execute(
                cursor.update().values(
                    position=0,
                    mark_id=0,
                    mark="",
                    seq=at.seq + 1,
                    epoch=at.epoch + 1,
                    rebuild_to=log.head(connection),
                )
            )

    def _finish_rebuild(self) -> None:
        """Never show a ledger that is half rebuilt: it would look as if most partitions had never landed."""
        with self.engine.begin() as connection:
            at = _read_cursor(connection)
        if at.position < at.rebuild_to:
            self.follow()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """Open one consistent view of the ledger."""
        with self.engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ")  # noqa: PLW2901
            with connection.begin():
                yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self.engine.connect() as connection:
            connection = connection.execution_options(immediate=True)  # noqa: PLW2901
            with connection.begin():
                yield connection


def _read_cursor(connection: Connection, *, lock: bool = False) -> _Cursor:
    query = sa.select(cursor)
    row: Any = connection.execute(query.with_for_update() if lock else query).one()
    return _Cursor(*row)


def _same_log(connection: Connection, at: _Cursor) -> bool:
    """Whether the log is still the one whose event `mark_id` was applied."""
    if not at.mark_id:
        return True
    found = log.look_of(connection, at.mark_id)
    if found is not None:
        return found == at.mark
    # The newest run or asset was deleted. SQLite gives its ids out again, PostgreSQL never does.
    return connection.dialect.name == "postgresql" and log.head(connection) > at.position


def _touch(connection: Connection, tables: Collection[str], seq: int, reset_seq: int) -> None:
    if not tables:
        return
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    insert = dialect.insert(touched)
    changes = {"seq": insert.excluded.seq, "reset_seq": touched.c.reset_seq}
    if reset_seq:
        changes["reset_seq"] = insert.excluded.reset_seq
    rows = [{"table_key": key, "seq": seq, "reset_seq": reset_seq} for key in sorted(tables)]
    connection.execute(insert.on_conflict_do_update(index_elements=["table_key"], set_=changes), rows)
