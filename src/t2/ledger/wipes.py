"""Forget what a person wiped in Dagster, and runs whose events a person deleted."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from t2.ledger import log
from t2.ledger.apply import chunks, complete
from t2.ledger.events import ENDED
from t2.ledger.schema import (
    DERIVED,
    check_totals,
    checks,
    event_logs,
    failures,
    partitions,
    planned_checks,
    runs,
    targets,
    wipes,
)

_ENDED_RUNS = sa.select(runs.c.run_id).where(runs.c.status.in_(ENDED))
_IN_LOG = sa.exists().where(event_logs.c.run_id == runs.c.run_id)
_VANISHED = sa.select(runs.c.run_id).where(runs.c.status.not_in(ENDED), ~_IN_LOG)


def known(connection: Connection) -> dict[str, float]:
    """Return the wipes that the ledger has taken into account."""
    return {row.table_key: row.at for row in connection.execute(sa.select(wipes))}


def news(connection: Connection) -> tuple[dict[str, float], list[str]]:
    """Return the wipes, and the active runs without any event left, that the ledger does not know of yet."""
    before = known(connection)
    fresh = {key: at for key, at in log.wiped(connection).items() if before.get(key) != at}
    return fresh, list(connection.scalars(_VANISHED))


def wipe(connection: Connection, fresh: Mapping[str, float]) -> None:
    """Forget what landed, was checked and failed in tables up to the moment they were wiped."""
    for key, at in fresh.items():
        connection.execute(wipes.delete().where(wipes.c.table_key == key))
        connection.execute(wipes.insert(), {"table_key": key, "at": at})
        for table in (partitions, checks, check_totals, failures):
            connection.execute(table.delete().where(table.c.table_key == key, table.c.at <= at))
        _forget_deleted_events(connection, key)
        complete(connection, targets.c.table_key == key)


def _forget_deleted_events(connection: Connection, key: str) -> None:
    """Take back what rests on deleted events: with SQLite, a wipe deletes them from the log.

    Active runs keep their targets, or the planner would ask for the same partitions once more.
    """
    theirs = (targets.c.table_key == key, targets.c.run_id.in_(_ENDED_RUNS))
    columns = [targets.c[name] for name in ("planned_id", "built_id", "failed_id", "skipped_id")]
    for column in columns:
        gone = ~sa.exists().where(event_logs.c.id == column)
        connection.execute(targets.update().where(*theirs, column > 0, gone).values({column.name: 0}))
    nothing = [column == 0 for column in (*columns, targets.c.blocked_id)]
    connection.execute(targets.delete().where(*theirs, *nothing))


def vanish(connection: Connection, run_ids: list[str]) -> set[str]:
    """Forget active runs that were deleted in Dagster: they will never end. Return their tables."""
    tables: set[str] = set()
    for chunk in chunks(run_ids):
        tables |= set(connection.scalars(sa.select(targets.c.table_key).where(targets.c.run_id.in_(chunk))))
        for table in (runs, targets, planned_checks):
            connection.execute(table.delete().where(table.c.run_id.in_(chunk)))
    return tables


def empty(connection: Connection) -> None:
    """Forget everything."""
    for table in DERIVED:
        connection.execute(table.delete())
