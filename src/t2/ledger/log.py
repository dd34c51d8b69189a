"""Read Dagster's event log in pages, and know which of its ids may still turn up."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from t2.ledger.events import KINDS
from t2.ledger.schema import asset_keys, event_logs

_EVENT = sa.case((event_logs.c.dagster_event_type.in_(KINDS), event_logs.c.event))
_ROW = (
    event_logs.c.id,
    event_logs.c.run_id,
    event_logs.c.dagster_event_type,
    _EVENT.label("event"),
    event_logs.c.timestamp,
)
_NEWER = sa.select(*_ROW).where(event_logs.c.id > sa.bindparam("seen")).order_by(event_logs.c.id)
_THESE = sa.select(*_ROW).where(event_logs.c.id.in_(sa.bindparam("ids", expanding=True)))
_CLOCK = sa.select(sa.extract("epoch", sa.func.clock_timestamp()))
_HEAD = sa.select(sa.func.max(event_logs.c.id))
_WIPED = sa.select(asset_keys.c.asset_key, asset_keys.c.asset_details).where(
    asset_keys.c.asset_details.is_not(None)
)

# Gaps are remembered id by id; what is beyond this many ids was deleted, not delayed.
MOST_GAPS = 20_000


@dataclass
class Tail:
    """How far one process has read the log.

    PostgreSQL gives out ids before the transactions that use them commit, so a lower id can become
    visible after a higher one. `gaps` are the ids that were not there yet, each with the moment (by the
    database's clock) from when on it is taken for rolled back.
    """

    settle_seconds: float
    seen: int = 0
    gaps: dict[int, float] = field(default_factory=dict)

    @property
    def position(self) -> int:
        """The id up to which nothing can turn up any more."""
        return min(self.gaps) - 1 if self.gaps else self.seen

    def read(self, connection: Connection, limit: int) -> Page:
        """Read what turned up in the gaps, and the next `limit` rows; the tail itself stays as it is."""
        if connection.dialect.name != "postgresql":
            rows = connection.execute(_NEWER.limit(limit), {"seen": self.seen}).all()
            return Page(
                rows, Tail(self.settle_seconds, rows[-1][0] if rows else self.seen), len(rows) == limit
            )
        # The clock is read first: a gap that is over by then was over before the rows are looked at.
        now = float(connection.execute(_CLOCK).scalar_one())
        late = connection.execute(_THESE, {"ids": sorted(self.gaps)}).all() if self.gaps else []
        rows = connection.execute(_NEWER.limit(limit), {"seen": self.seen}).all()
        found = {row[0] for row in late}
        gaps = {gap: until for gap, until in self.gaps.items() if until > now and gap not in found}
        gaps.update(self._new_gaps(rows, now))
        tail = Tail(self.settle_seconds, rows[-1][0] if rows else self.seen, gaps)
        return Page([*late, *rows], tail, len(rows) == limit)

    def _new_gaps(self, rows: Sequence[Any], now: float) -> Iterable[tuple[int, float]]:
        before = self.seen
        for row in rows:
            if row[0] > before + 1:
                until = _epoch(row[4]) + self.settle_seconds
                if until > now:
                    yield from ((gap, until) for gap in range(max(before + 1, row[0] - MOST_GAPS), row[0]))
            before = row[0]


@dataclass(frozen=True)
class Page:
    """Rows (id, run_id, kind, event or None, timestamp), the tail after them, and whether more may follow."""

    rows: Sequence[Any]
    tail: Tail
    more: bool

    @property
    def mark(self) -> tuple[int, str] | None:
        """The id of the newest row that stays, and what it looks like."""
        settled = [row for row in self.rows if row[0] <= self.tail.position]
        return (settled[-1][0], look(settled[-1])) if settled else None


def look(row: Any) -> str:
    """Describe a row so that another row with the same id would differ."""
    return f"{row[1]} {row[2]} {row[4]}"


def look_of(connection: Connection, event_id: int) -> str | None:
    """Return the look of the event with an id; None if there is none."""
    row = connection.execute(_THESE, {"ids": [event_id]}).first()
    return look(row) if row else None


def head(connection: Connection) -> int:
    """Return the highest event id, 0 for an empty log."""
    return connection.scalar(_HEAD) or 0


def wiped(connection: Connection) -> dict[str, float]:
    """Return when each table that was ever wiped was wiped last.

    Not read from ASSET_WIPED: with SQLite that event is written to a file of its own, not to the index.
    """
    moments = {}
    rows: Iterable[Any] = connection.execute(_WIPED)
    for key, details in rows:
        moment = json.loads(details).get("last_wipe_timestamp")
        if moment is not None:
            moments["/".join(json.loads(key))] = float(moment)
    return moments


def _epoch(timestamp: datetime) -> float:
    return timestamp.replace(tzinfo=timezone.utc).timestamp()
