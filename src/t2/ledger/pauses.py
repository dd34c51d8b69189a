"""Pauses: who said that a table is not built for a while, and why.

Like requests for backfills they are no events of Dagster's and stay when the ledger is rebuilt. A row is
never deleted: those that have ended are the audit trail. Every change counts `seq` up, by which whoever polls
sees it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from t2.planning.state import Pause

metadata = sa.MetaData()  # not the ledger's: that is dropped when its tables change

_pauses = sa.Table(
    "t2_pauses",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("table_key", sa.Text, nullable=False, index=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("paused_by", sa.Text, nullable=False),
    sa.Column("paused_at", sa.Float(53), nullable=False),
    sa.Column("until", sa.Float(53)),
    sa.Column("ended_by", sa.Text),
    sa.Column("ended_at", sa.Float(53)),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sqlite_autoincrement=True,
)
_SEQ = sa.select(sa.func.coalesce(sa.func.max(_pauses.c.seq), 0))


@dataclass(frozen=True)
class PauseRecord:
    """One order; times are epoch seconds.

    `until`: when it ends by itself, None for never. `ended_by` and `ended_at`: who resumed the table, or
    paused it anew, before that.
    """

    table: str
    reason: str
    paused_by: str
    paused_at: float
    until: float | None
    ended_by: str | None
    ended_at: float | None

    def holds(self, at: float) -> bool:
        """Whether the table is paused by it at an instant."""
        return self.ended_at is None and (self.until is None or at < self.until)


class Pauses:
    """The pauses in the database of a ledger."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        with self._writing() as connection:
            metadata.create_all(connection)

    def seq(self) -> int:
        """Return the number of the newest change; cheap, for whoever polls."""
        with self._engine.begin() as connection:
            return int(connection.scalar(_SEQ) or 0)

    def pause(self, tables: Collection[str], *, reason: str, by: str, at: float, until: float | None) -> None:
        """Pause tables from now on; what they were paused by before ends."""
        with self._writing() as connection:
            self._end(connection, tables, by, at)
            seq = int(connection.scalar(_SEQ) or 0) + 1
            row = {"reason": reason, "paused_by": by, "paused_at": at, "until": until, "seq": seq}
            connection.execute(_pauses.insert(), [{"table_key": key, **row} for key in sorted(tables)])

    def resume(self, tables: Collection[str], *, by: str, at: float) -> list[str]:
        """End the pauses of tables; return which were paused."""
        with self._writing() as connection:
            return self._end(connection, tables, by, at)

    def paused(self, at: float) -> dict[str, Pause]:
        """Return what holds at an instant (epoch seconds), by table."""
        return {
            record.table: Pause(
                until=math.inf if record.until is None else record.until,
                reason=record.reason,
                by=record.paused_by,
                since=record.paused_at,
            )
            for record in self._load(_pauses.c.ended_at.is_(None))
            if record.holds(at)
        }

    def all(self) -> list[PauseRecord]:
        """Return all pauses that there ever were, newest first."""
        return self._load(sa.true())[::-1]

    def _end(self, connection: Connection, tables: Collection[str], by: str, at: float) -> list[str]:
        these = (_pauses.c.table_key.in_(tables), _pauses.c.ended_at.is_(None))
        holding = sa.or_(_pauses.c.until.is_(None), _pauses.c.until > at)
        found = connection.scalars(sa.select(_pauses.c.table_key).where(*these, holding)).all()
        seq = int(connection.scalar(_SEQ) or 0) + 1
        ended = _pauses.update().where(*these, holding).values(ended_by=by, ended_at=at, seq=seq)
        connection.execute(ended)
        return sorted(found)

    def _load(self, condition: sa.ColumnElement[bool]) -> list[PauseRecord]:
        with self._engine.begin() as connection:
            rows: list[Any] = list(
                connection.execute(sa.select(_pauses).where(condition).order_by(_pauses.c.id))
            )
        return [
            PauseRecord(
                row.table_key,
                row.reason,
                row.paused_by,
                row.paused_at,
                row.until,
                row.ended_by,
                row.ended_at,
            )
            for row in rows
        ]

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            connection = connection.execution_options(immediate=True)  # noqa: PLW2901
            with connection.begin():
                if connection.dialect.name == "postgresql":
                    connection.execute(
                        sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext("t2_pauses")))
                    )
                yield connection
