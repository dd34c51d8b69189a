"""What the commands ask the ledger about single runs and partitions."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from t2.ledger.apply import chunks
from t2.ledger.events import ENDED
from t2.ledger.outcomes import ended_attempt, landed, landed_id, troubles_of
from t2.ledger.schema import checks, failures, incomplete, partitions, runs, targets


@dataclass(frozen=True)
class ActiveRun:
    """A run that has not ended. `partitions`: how many (table, partition) it was to build."""

    run_id: str
    status: str
    tables: tuple[str, ...]
    partitions: int
    started_at: float | None


@dataclass(frozen=True)
class Landing:
    """The newest materialization of a partition; `code_version` is "" where the builder did not say."""

    event_id: int
    at: float
    run_id: str
    code_version: str
    as_of: int


@dataclass(frozen=True)
class Attempt:
    """An attempt that did not build the partition. `kind`: failed, died, canceled or skipped."""

    event_id: int
    at: float
    run_id: str
    kind: str
    code_version: str
    as_of: int
    error: str


@dataclass(frozen=True)
class Check:
    """The newest evaluation of a check on a partition. `fails`: it failed, and is more than a warning."""

    name: str
    event_id: int
    at: float
    run_id: str
    passed: bool
    severity: str
    blocking: bool
    fails: bool
    description: str
    failed_rows: int | None


def active_runs(connection: Connection) -> list[ActiveRun]:
    """Return the runs that have not ended and build something, in the order in which they were asked for."""
    query = (
        sa.select(
            runs.c.run_id,
            runs.c.status,
            runs.c.started_at,
            targets.c.table_key,
            sa.func.count(),
        )
        .join(targets, targets.c.run_id == runs.c.run_id)
        .where(runs.c.status.not_in(ENDED), targets.c.planned_id > 0)
        .group_by(runs.c.run_id, runs.c.status, runs.c.started_at, targets.c.table_key)
        .order_by(sa.func.min(targets.c.planned_id))
    )
    found: dict[str, ActiveRun] = {}
    rows: Iterable[Any] = connection.execute(query)
    for run_id, status, started_at, key, count in rows:
        before = found.get(run_id) or ActiveRun(run_id, status, (), 0, started_at or None)
        tables = (*before.tables, key)
        found[run_id] = ActiveRun(run_id, status, tables, before.partitions + count, before.started_at)
    return list(found.values())


def active_run_ids(connection: Connection) -> set[str]:
    """Return the runs that have not ended, also those that are not known to build anything."""
    return set(connection.scalars(sa.select(runs.c.run_id).where(runs.c.status.not_in(ENDED))))


def planned(connection: Connection, run_ids: Collection[str]) -> set[tuple[str, str, str]]:
    """Return the (run id, table, partition) triples that runs are known to build."""
    found: set[tuple[str, str, str]] = set()
    columns = (targets.c.run_id, targets.c.table_key, targets.c.partition)
    for chunk in chunks(run_ids):
        rows: Iterable[Any] = connection.execute(
            sa.select(*columns).where(targets.c.run_id.in_(chunk), targets.c.planned_id > 0)
        )
        found.update((run_id, table, partition) for run_id, table, partition in rows)
    return found


def landing(connection: Connection, table: str, partition: str) -> Landing | None:
    """Return the newest materialization of a partition."""
    columns = [partitions.c[name] for name in ("event_id", "at", "run_id", "code_version", "as_of")]
    query = sa.select(*columns).where(partitions.c.table_key == table, partitions.c.partition == partition)
    row: Any = connection.execute(query).first()
    return Landing(*row) if row else None


def fingerprints(connection: Connection, table: str) -> dict[str, str]:
    """Return what monitors saw of each materialized partition of a source, "" where others reported it."""
    query = sa.select(partitions.c.partition, partitions.c.fingerprint).where(partitions.c.table_key == table)
    return {row[0]: row[1] for row in connection.execute(query)}


def attempts(connection: Connection, table: str, partition: str, upstreams: Collection[str]) -> list[Attempt]:
    """Return what was tried on a partition without success, newest first, a later landing or not."""
    said = connection.execute(
        sa.select(failures).where(failures.c.table_key == table, failures.c.partition == partition)
    )
    found = [
        Attempt(row.event_id, row.at, row.run_id, "failed", row.code_version, row.as_of, row.error)
        for row in said
    ]
    undone = connection.execute(
        sa.select(targets, runs, landed_id.label("landed_id"))
        .join(runs, runs.c.run_id == targets.c.run_id)
        .outerjoin(partitions, landed)
        .where(targets.c.table_key == table, targets.c.partition == partition, incomplete)
        .where(targets.c.planned_id > 0, targets.c.failed_id == 0, runs.c.status.in_(ENDED))
    ).all()
    troubles = troubles_of(connection, {row.run_id for row in undone})
    for row in undone:
        attempt = ended_attempt(row, troubles[row.run_id], upstreams)
        kind = attempt.kind if attempt else "skipped"
        as_of = attempt.as_of if attempt else row.planned_id
        found.append(Attempt(row.ended_id, row.ended_at, row.run_id, kind, "", as_of, _ERRORS[kind]))
    return sorted(found, key=lambda attempt: -attempt.event_id)


_ERRORS = {
    "died": "the run ended without a word about this partition",
    "canceled": "the run was canceled",
    "skipped": "something that it reads was not built or was blocked in the same run",
}


def checks_of(connection: Connection, table: str, partition: str) -> list[Check]:
    """Return the newest evaluation of each check on a partition, failed ones first."""
    names = ("check_name", "event_id", "at", "run_id", "passed", "severity", "blocking", "fails")
    columns = [checks.c[name] for name in (*names, "description", "failed_rows")]
    query = (
        sa.select(*columns)
        .where(checks.c.table_key == table, checks.c.partition == partition)
        .order_by(checks.c.passed, checks.c.check_name)
    )
    rows: Iterable[Any] = connection.execute(query)
    return [Check(*row) for row in rows]


def last_event_at(connection: Connection) -> float | None:
    """Return when the newest landing, start or end of a run was, in epoch seconds."""
    newest = [
        connection.scalar(sa.select(sa.func.max(column)))
        for column in (runs.c.started_at, runs.c.ended_at, partitions.c.at)
    ]
    return max((moment for moment in newest if moment), default=None)
