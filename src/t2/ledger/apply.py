"""Write a page of events into the ledger's tables.

The row with the highest event id wins everywhere, so a page may be applied again, and pages in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from t2.ledger.events import (
    ENDED,
    CheckPlanned,
    Evaluated,
    Event,
    Failed,
    Materialized,
    Planned,
    RunChanged,
    Skipped,
)
from t2.ledger.schema import (
    check_totals,
    checks,
    failures,
    incomplete,
    partitions,
    planned_checks,
    runs,
    targets,
)

# Both databases limit the parameters of a statement; SQLite's limit is 32,766.
CHUNK = 500

Row = dict[str, Any]


@dataclass
class Batch:
    """The rows that a page of events makes, at most one for each primary key."""

    runs: dict[str, Row] = field(default_factory=dict)
    targets: dict[tuple[str, str, str], Row] = field(default_factory=dict)
    planned_checks: dict[tuple[str, str, str], Row] = field(default_factory=dict)
    partitions: dict[tuple[str, str], Row] = field(default_factory=dict)
    checks: dict[tuple[str, str, str], Row] = field(default_factory=dict)
    totals: dict[tuple[str, str], Row] = field(default_factory=dict)
    failures: dict[tuple[str, str, int], Row] = field(default_factory=dict)
    run_ids: set[str] = field(default_factory=set)
    tables: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, events: Iterable[Event], wiped: Mapping[str, float]) -> Batch:
        """Merge events into rows; of a wiped table only what came later landed, was checked or failed."""
        batch = cls()
        for event in events:
            batch.run_ids.add(event.run_id)
            if not isinstance(event, RunChanged):
                batch.tables.add(event.table)
            stale = not isinstance(event, RunChanged) and event.at <= wiped.get(event.table, float("-inf"))
            _ADDERS[type(event)](batch, event, stale)
        batch.run_ids.discard("")
        return batch

    def run(self, event: RunChanged, _stale: bool) -> None:
        """Take a run's new status."""
        row = self._run(event.run_id)
        if event.id > row["status_id"]:
            row.update(status=event.status, status_id=event.id)
        moment = {"started": "started", **dict.fromkeys(ENDED, "ended")}.get(event.status)
        if moment and event.id > row[f"{moment}_id"]:
            row.update({f"{moment}_id": event.id, f"{moment}_at": event.at})

    def planned(self, event: Planned, _stale: bool) -> None:
        """Take a target of a run; of its status this says no more than that there is such a run.

        What a cut-off launch had not reported is reported later, and the run may have ended by then.
        """
        self._run(event.run_id)
        self._target(event, "planned_id")

    def check_planned(self, event: CheckPlanned, _stale: bool) -> None:
        """Take a check that a run is going to evaluate."""
        key = (event.run_id, event.table, event.check)
        self.planned_checks[key] = dict(zip(("run_id", "table_key", "check_name"), key, strict=True))

    def materialized(self, event: Materialized, stale: bool) -> None:
        """Take what was built."""
        self._target(event, "built_id")
        if not stale:
            row = _row(event)
            _newest(self.partitions, (event.table, event.partition), row)

    def evaluated(self, event: Evaluated, stale: bool) -> None:
        """Take a check's result."""
        if event.blocks:
            self._target(event, "blocked_id")
        if not stale:
            row = _row(event)
            row["check_name"] = row.pop("check")
            row["fails"] = event.fails
            del row["as_of"]
            _newest(self.checks, (event.table, event.partition, event.check), row)
            self._total(event)

    def failed(self, event: Failed, stale: bool) -> None:
        """Take a failed attempt."""
        self._target(event, "failed_id")
        if not stale:
            self.failures[(event.table, event.partition, event.id)] = _row(event)

    def skipped(self, event: Skipped, _stale: bool) -> None:
        """Take a target that was left as it is."""
        self._target(event, "skipped_id")

    def _total(self, event: Evaluated) -> None:
        row = self.totals.setdefault(
            (event.table, event.check),
            {
                "table_key": event.table,
                "check_name": event.check,
                "event_id": 0,
                "at": 0.0,
                "passed_as_of": 0,
                "first_id": event.id,
            },
        )
        if event.id > row["event_id"]:
            row.update(event_id=event.id, at=event.at)
        row["first_id"] = min(row["first_id"], event.id)
        if event.passed:
            row["passed_as_of"] = max(row["passed_as_of"], event.as_of)

    def _run(self, run_id: str) -> Row:
        return self.runs.setdefault(
            run_id,
            {
                "run_id": run_id,
                "status": "queued",
                "status_id": 0,
                "started_id": 0,
                "started_at": 0.0,
                "ended_id": 0,
                "ended_at": 0.0,
            },
        )

    def _target(self, event: Planned | Materialized | Evaluated | Failed | Skipped, column: str) -> None:
        if not event.run_id:
            return
        key = (event.run_id, event.table, event.partition)
        row = self.targets.setdefault(
            key,
            {
                "run_id": event.run_id,
                "table_key": event.table,
                "partition": event.partition,
                "planned_id": 0,
                "built_id": 0,
                "failed_id": 0,
                "skipped_id": 0,
                "blocked_id": 0,
                "complete": False,
            },
        )
        row[column] = max(row[column], event.id)


_ADDERS: Mapping[type, Callable[[Batch, Any, bool], None]] = {
    RunChanged: Batch.run,
    Planned: Batch.planned,
    CheckPlanned: Batch.check_planned,
    Materialized: Batch.materialized,
    Evaluated: Batch.evaluated,
    Failed: Batch.failed,
    Skipped: Batch.skipped,
}


def apply(connection: Connection, events: Sequence[Event], wiped: Mapping[str, float]) -> set[str]:
    """Apply events in the connection's transaction; return the tables whose state may differ now."""
    batch = Batch.of(events, wiped)
    _upsert(connection, runs, batch.runs.values(), _RUN_GROUPS)
    _upsert(connection, targets, batch.targets.values(), [(column, (column,)) for column in _TARGET_IDS])
    _upsert(connection, planned_checks, batch.planned_checks.values(), [])
    for table, rows in ((partitions, batch.partitions), (checks, batch.checks)):
        columns = tuple(column.name for column in table.columns if not column.primary_key)
        _upsert(connection, table, rows.values(), [("event_id", columns)])
    _upsert(connection, check_totals, batch.totals.values(), _TOTAL_GROUPS, least=("first_id",))
    _upsert(connection, failures, batch.failures.values(), [])
    others = _complete(connection, batch)
    return batch.tables | _tables_of(connection, set(batch.runs), batch.run_ids | others)


def complete(connection: Connection, *where: sa.ColumnElement[bool]) -> None:
    """Say anew of the targets that fit `where` whether they are complete."""
    connection.execute(targets.update().where(*where).values(complete=_COMPLETE))


def _complete(connection: Connection, batch: Batch) -> set[str]:
    """Say which targets are complete now; return the other runs that waited for what this page brought."""
    pairs = _oldest_by_partition(batch)
    others = _runs_with_incomplete(connection, pairs)
    for chunk in chunks({*batch.runs, *(run_id for run_id, _, _ in batch.planned_checks)}):
        complete(connection, targets.c.run_id.in_(chunk))
    if pairs:
        rows = [{"a": table, "b": partition, "c": event} for (table, partition), event in pairs.items()]
        connection.execute(_COMPLETE_INCOMPLETE, rows)
        connection.execute(_COMPLETE_BUILT_LATER, rows)
    return others


def _oldest_by_partition(batch: Batch) -> dict[tuple[str, str], int]:
    oldest: dict[tuple[str, str], int] = {}
    for row in (*batch.partitions.values(), *batch.checks.values(), *batch.targets.values()):
        key = (row["table_key"], row["partition"])
        event = row["event_id"] if "event_id" in row else row["built_id"]
        if event:
            oldest[key] = min(oldest.get(key, event), event)
    return oldest


def _runs_with_incomplete(connection: Connection, pairs: Mapping[tuple[str, str], int]) -> set[str]:
    found: set[str] = set()
    columns = (targets.c.table_key, targets.c.partition, targets.c.run_id)
    for chunk in chunks({table for table, _ in pairs}):
        query = sa.select(*columns).where(incomplete, targets.c.table_key.in_(chunk))
        rows: Iterable[Any] = connection.execute(query)
        found |= {run_id for table, partition, run_id in rows if (table, partition) in pairs}
    return found


def _tables_of(connection: Connection, changed: set[str], concerned: set[str]) -> set[str]:
    """Return all tables of the runs that changed, and of those that have ended among the concerned.

    Once a run has ended, what became of one of its tables explains the others.
    """
    found: set[str] = set()
    for chunk in chunks(changed | concerned):
        query = (
            sa.select(targets.c.table_key)
            .distinct()
            .join(runs, runs.c.run_id == targets.c.run_id)
            .where(targets.c.run_id.in_(chunk))
            .where(sa.or_(targets.c.run_id.in_(changed & set(chunk)), runs.c.status.in_(ENDED)))
        )
        found |= set(connection.scalars(query))
    return found


def chunks(values: Iterable[str]) -> Iterable[list[str]]:
    """Return values in lists that are short enough for one statement, in a stable order."""
    ordered = sorted(values)
    return (ordered[start : start + CHUNK] for start in range(0, len(ordered), CHUNK))


def _row(event: Materialized | Evaluated | Failed) -> Row:
    row = dict(event.__dict__)
    row["event_id"] = row.pop("id")
    row["table_key"] = row.pop("table")
    return row


def _newest(rows: dict[Any, Row], key: tuple[str, ...], row: Row) -> None:
    if key not in rows or row["event_id"] > rows[key]["event_id"]:
        rows[key] = row


_RUN_GROUPS = [
    ("status_id", ("status", "status_id")),
    ("started_id", ("started_id", "started_at")),
    ("ended_id", ("ended_id", "ended_at")),
]
_TARGET_IDS = ("planned_id", "built_id", "failed_id", "skipped_id", "blocked_id")
_TOTAL_GROUPS = [("event_id", ("event_id", "at")), ("passed_as_of", ("passed_as_of",))]


def _upsert(
    connection: Connection,
    table: sa.Table,
    rows: Collection[Row],
    groups: Sequence[tuple[str, tuple[str, ...]]],
    least: Sequence[str] = (),
) -> None:
    """Insert rows; of each group (id, columns) the columns come from whichever row has the higher id.

    Of the columns in `least` the lower value stays.
    """
    if not rows:
        return
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    insert = dialect.insert(table)
    keys = [column.name for column in table.primary_key]
    if not groups:
        connection.execute(insert.on_conflict_do_nothing(index_elements=keys), list(rows))
        return
    changes = {
        name: sa.case((insert.excluded[newest] > table.c[newest], insert.excluded[name]), else_=table.c[name])
        for newest, names in groups
        for name in names
    }
    for name in least:
        lower = insert.excluded[name] < table.c[name]
        changes[name] = sa.case((lower, insert.excluded[name]), else_=table.c[name])
    connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=changes), list(rows))


def _complete_expression() -> sa.ColumnElement[bool]:
    succeeded = sa.exists().where(runs.c.run_id == targets.c.run_id, runs.c.status == "success")
    evaluation = sa.exists().where(
        checks.c.table_key == targets.c.table_key,
        checks.c.partition == targets.c.partition,
        checks.c.check_name == planned_checks.c.check_name,
        # A step may evaluate before it reports what it built; anybody else's evaluation has to come after.
        sa.or_(checks.c.run_id == targets.c.run_id, checks.c.event_id > targets.c.built_id),
    )
    # Said aloud: two levels down, SQLAlchemy would select from `targets` once more instead.
    evaluated = evaluation.correlate(targets, planned_checks)
    missing = sa.exists().where(
        planned_checks.c.run_id == targets.c.run_id,
        planned_checks.c.table_key == targets.c.table_key,
        ~evaluated,
    )
    return sa.and_(targets.c.built_id > 0, sa.or_(succeeded, ~missing))


_COMPLETE = _complete_expression()
_OF_PARTITION = targets.update().where(
    targets.c.table_key == sa.bindparam("a"), targets.c.partition == sa.bindparam("b")
)
# Two statements, each with an index of its own: a partition may have been built by thousands of runs.
_COMPLETE_INCOMPLETE = _OF_PARTITION.where(incomplete).values(complete=_COMPLETE)
_COMPLETE_BUILT_LATER = _OF_PARTITION.where(targets.c.built_id >= sa.bindparam("c")).values(
    complete=_COMPLETE
)
