"""What is active, blocked or failed now: the little that is not simply the newest row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from t2.ledger.apply import chunks
from t2.ledger.events import ENDED, RUNNING
from t2.ledger.gates import Gate, gates
from t2.ledger.schema import failures, incomplete, partitions, runs, targets
from t2.project.model import Project

_ended = runs.c.status.in_(ENDED)
landed_id = sa.func.coalesce(partitions.c.event_id, 0)
landed = sa.and_(partitions.c.table_key == targets.c.table_key, partitions.c.partition == targets.c.partition)

# What runs have left undone; of ended runs only what nobody has made good since.
_UNDONE = (
    sa.select(
        targets.c.table_key,
        targets.c.partition,
        targets.c.run_id,
        targets.c.planned_id,
        targets.c.built_id,
        targets.c.failed_id,
        targets.c.skipped_id,
        runs.c.status,
        runs.c.started_id,
        runs.c.ended_id,
        runs.c.ended_at,
        landed_id.label("landed_id"),
        partitions.c.run_id.label("landed_by"),
    )
    .join(runs, runs.c.run_id == targets.c.run_id)
    .outerjoin(
        partitions,
        sa.and_(partitions.c.table_key == targets.c.table_key, partitions.c.partition == targets.c.partition),
    )
    .where(incomplete, targets.c.planned_id > 0)
    .where(sa.or_(~_ended, runs.c.ended_id > landed_id, partitions.c.run_id == targets.c.run_id))
)
_FAILED = (
    sa.select(
        failures.c.table_key,
        failures.c.partition,
        failures.c.event_id,
        failures.c.at,
        failures.c.as_of,
        failures.c.code_version,
    )
    .outerjoin(
        partitions,
        sa.and_(
            partitions.c.table_key == failures.c.table_key, partitions.c.partition == failures.c.partition
        ),
    )
    .where(failures.c.event_id > landed_id)
)


@dataclass(frozen=True, order=True)
class FailedAttempt:
    """An attempt that did not end in a landing. `kind`: failed, died or canceled."""

    id: int
    at: float
    as_of: int
    code_version: str
    kind: str


@dataclass
class TableOutcomes:
    """One table's: `active` is True where the run has started; `attempts` are those since the landing.

    `unchecked`: the run that built it ended before its checks did. `gates`: its checks that failed.
    """

    active: dict[str, bool] = field(default_factory=dict)
    unchecked: set[str] = field(default_factory=set)
    gates: list[Gate] = field(default_factory=list)
    attempts: dict[str, list[FailedAttempt]] = field(default_factory=lambda: defaultdict(list))
    runs: set[str] = field(default_factory=set)

    @property
    def active_runs(self) -> int:
        """How many active runs have something of the table left to do."""
        return len(self.runs)


class Outcomes:
    """The outcomes of some tables; `everything` when they are all of the project's."""

    def __init__(
        self,
        connection: Connection,
        project: Project,
        keys: Collection[str],
        wiped: Mapping[str, float],
        *,
        everything: bool,
    ) -> None:
        self._connection = connection
        self._keys = None if everything else keys
        self._wiped = wiped
        self._tables: dict[str, TableOutcomes] = defaultdict(TableOutcomes)
        self._read_failures()
        for key, closed in gates(connection, project, self._keys).items():
            self._tables[key].gates = closed
        self._read_undone(project)

    def of(self, key: str) -> TableOutcomes:
        """Return one table's outcomes."""
        return self._tables.get(key) or TableOutcomes()

    def _rows(self, query: Any, column: sa.Column[Any]) -> Iterator[Any]:
        if self._keys is None:
            yield from self._connection.execute(query)
        else:
            for chunk in chunks(self._keys):
                yield from self._connection.execute(query.where(column.in_(chunk)))

    def _read_failures(self) -> None:
        for row in self._rows(_FAILED, failures.c.table_key):
            attempt = FailedAttempt(row.event_id, row.at, row.as_of, row.code_version, "failed")
            self._tables[row.table_key].attempts[row.partition].append(attempt)

    def _read_undone(self, project: Project) -> None:
        rows = list(self._rows(_UNDONE, targets.c.table_key))
        troubles = troubles_of(self._connection, {row.run_id for row in rows if row.status in ENDED})
        for row in rows:
            table = self._tables[row.table_key]
            if row.status not in ENDED:
                started = row.status in RUNNING
                table.active[row.partition] = started or table.active.get(row.partition, False)
                table.runs.add(row.run_id)
                continue
            if row.ended_at <= self._wiped.get(row.table_key, 0.0):
                continue
            if row.built_id and row.landed_by == row.run_id:
                table.unchecked.add(row.partition)
            attempt = ended_attempt(row, troubles[row.run_id], upstreams_of(project, row.table_key))
            if attempt is not None and row.ended_id > row.landed_id:
                table.attempts[row.partition].append(attempt)


def upstreams_of(project: Project, key: str) -> set[str]:
    """Return what a table reads, the views between and itself (if it does) included; nothing for a source."""
    table = project.tables.get(key)
    return {name for edge in table.upstreams for name in (edge.key, *edge.through)} if table else set()


def troubles_of(connection: Connection, run_ids: Collection[str]) -> dict[str, dict[str, bool]]:
    """Return, by run, the tables that it left undone or saw blocked; True if it said of one why."""
    troubles: dict[str, dict[str, bool]] = defaultdict(dict)
    failed_id = sa.func.max(sa.case((incomplete, targets.c.failed_id), else_=0))
    query = sa.select(targets.c.run_id, targets.c.table_key, failed_id).group_by(
        targets.c.run_id, targets.c.table_key
    )
    for chunk in chunks(run_ids):
        trouble = sa.or_(incomplete, targets.c.blocked_id > 0)
        rows: Iterable[Any] = connection.execute(query.where(targets.c.run_id.in_(chunk), trouble))
        for run_id, key, failed in rows:
            troubles[run_id][key] = failed > 0
    return troubles


def ended_attempt(row: Any, troubles: Mapping[str, bool], upstreams: Collection[str]) -> FailedAttempt | None:
    """Return the attempt that an ended run left undone without a word; None if it said so or skipped it.

    It is skipped if its step said so; if something that it reads did not get done, or was blocked, in the
    same run; if the table said of other partitions that they failed (it was not its turn yet, or it had
    landed before); and if the run succeeded without building again what had landed. A run that died read its
    inputs after it started; one that was canceled was canceled by someone who knew them.
    """
    if row.failed_id or row.skipped_id:
        return None
    if row.status == "canceled":
        return FailedAttempt(row.ended_id, row.ended_at, row.ended_id, "", "canceled")
    if troubles.get(row.table_key) or troubles.keys() & (set(upstreams) - {row.table_key}):
        return None
    if row.status == "success" and row.landed_id:
        return None
    return FailedAttempt(row.ended_id, row.ended_at, row.started_id or row.planned_id, "", "died")
