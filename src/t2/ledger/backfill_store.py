"""The tables in which requests for backfills are stored, beside the ledger.

Requests are no events of Dagster's, so these tables are not derived from its log and stay when the ledger is
rebuilt. Every change counts `seq` up, by which whoever polls sees it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from t2.errors import NotFound
from t2.ledger import log
from t2.ledger.backfills import Backfill, BackfillState, Span

metadata = sa.MetaData()  # not the ledger's: that is dropped when its tables change

_requests = sa.Table(
    "t2_backfills",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("asked", sa.Text, nullable=False),
    sa.Column("asked_by", sa.Text, nullable=False),
    sa.Column("asked_at", sa.Float(53), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("ended_at", sa.Float(53), nullable=False),
    sa.Column("counts", sa.Text, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sqlite_autoincrement=True,
)
# Partition keys, not numbers: a table's `begin` may move. "" for a table that has none.
_ranges = sa.Table(
    "t2_backfill_ranges",
    metadata,
    sa.Column("backfill_id", sa.Integer, primary_key=True),
    sa.Column("table_key", sa.Text, primary_key=True),
    sa.Column("first", sa.Text, primary_key=True),
    sa.Column("last", sa.Text, nullable=False),
    sa.Column("since", sa.BigInteger, nullable=False),
)
_SEQ = sa.select(sa.func.coalesce(sa.func.max(_requests.c.seq), 0))


class Backfills:
    """The requests in the database of a ledger."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        with self._writing() as connection:
            metadata.create_all(connection)

    def seq(self) -> int:
        """Return the number of the newest change; cheap, for whoever polls."""
        with self._engine.begin() as connection:
            return int(connection.scalar(_SEQ) or 0)

    def running(self) -> list[Backfill]:
        """Return the backfills that run, oldest first."""
        with self._engine.begin() as connection:
            found = _load(connection, _requests.c.state == "running")
            top = log.head(connection) + 1 if found else 0
        if any(span.since > top for backfill in found for span in backfill.spans):
            # The log is another one, or its end was deleted: what it holds now is the past.
            with self._writing() as connection:
                connection.execute(_ranges.update().where(_ranges.c.since > top).values(since=top))
            return self.running()
        return found

    def all(self) -> list[Backfill]:
        """Return all backfills, newest first."""
        with self._engine.begin() as connection:
            return _load(connection, sa.true())[::-1]

    def get(self, backfill_id: int) -> Backfill:
        """Return one backfill; NotFound if there is none with that id."""
        with self._engine.begin() as connection:
            found = _load(connection, _requests.c.id == backfill_id)
        if not found:
            raise NotFound(f"there is no backfill {backfill_id}", hint="`t2 backfill list` lists them")
        return found[0]

    def ask(
        self, spans: Sequence[Span], *, asked: str, asked_by: str, reason: str, at: float, seen: int
    ) -> int | None:
        """Store a request for builds from now on and return its id.

        None if anything changed since `seen` (a `seq`): what was worked out may be asked for already.
        """
        with self._writing() as connection:
            if int(connection.scalar(_SEQ) or 0) != seen:
                return None
            row = {
                "state": "running",
                "asked": asked,
                "asked_by": asked_by,
                "asked_at": at,
                "reason": reason,
                "ended_at": 0.0,
                "counts": "{}",
                "seq": seen + 1,
            }
            added = connection.execute(_requests.insert().returning(_requests.c.id), row).scalar_one()
            _write(connection, added, spans, log.head(connection) + 1)
            return int(added)

    def renew(self, backfill: Backfill, failed: Sequence[Span], rest: Sequence[Span]) -> bool:
        """Let a backfill run again: `failed` is to be built from now on, `rest` as before.

        False if it changed since it was read.
        """
        with self._writing() as connection:
            if not _change(connection, backfill, state="running", ended_at=0.0, counts="{}"):
                return False
            connection.execute(_ranges.delete().where(_ranges.c.backfill_id == backfill.id))
            _write(connection, backfill.id, rest, 0)
            _write(connection, backfill.id, failed, log.head(connection) + 1)
            return True

    def end(self, backfill: Backfill, state: BackfillState, counts: Mapping[str, int], at: float) -> bool:
        """End a backfill with what became of its partitions; False if it changed since it was read."""
        with self._writing() as connection:
            return _change(connection, backfill, state=state, ended_at=at, counts=json.dumps(dict(counts)))

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            connection = connection.execution_options(immediate=True)  # noqa: PLW2901
            with connection.begin():
                if connection.dialect.name == "postgresql":
                    connection.execute(
                        sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext("t2_backfills")))
                    )
                yield connection


def _change(connection: Connection, backfill: Backfill, **values: Any) -> bool:
    seq = int(connection.scalar(_SEQ) or 0) + 1
    same = (_requests.c.id == backfill.id, _requests.c.seq == backfill.seq)
    return connection.execute(_requests.update().where(*same).values(**values, seq=seq)).rowcount == 1


def _write(connection: Connection, backfill_id: int, spans: Sequence[Span], since: int) -> None:
    rows = [
        {
            "backfill_id": backfill_id,
            "table_key": span.table,
            "first": span.first,
            "last": span.last,
            "since": since or span.since,
        }
        for span in spans
    ]
    if rows:
        connection.execute(_ranges.insert(), rows)


def _load(connection: Connection, condition: sa.ColumnElement[bool]) -> list[Backfill]:
    rows: list[Any] = list(connection.execute(sa.select(_requests).where(condition).order_by(_requests.c.id)))
    spans: dict[int, list[Span]] = {row.id: [] for row in rows}
    order = (_ranges.c.table_key, _ranges.c.first)
    these = _ranges.c.backfill_id.in_(sa.select(_requests.c.id).where(condition))
    for row in connection.execute(sa.select(_ranges).where(these).order_by(*order)) if rows else ():
        if row.backfill_id in spans:
            spans[row.backfill_id].append(Span(row.table_key, row.first, row.last, row.since))
    return [
        Backfill(
            row.id,
            row.state,
            row.asked,
            row.asked_by,
            row.asked_at,
            row.reason,
            row.ended_at or None,
            json.loads(row.counts),
            row.seq,
            tuple(spans[row.id]),
        )
        for row in rows
    ]
