"""Which failed checks hold back which readers of which partitions.

What the project declares now decides: a test that is gone, or is a warning now, holds back nothing, and one
that blocks other tables than before holds back those. A check that T2 does not know and did not evaluate is
somebody's own; it counts as its author marked it, until the partition is built again.

A check of a whole table is recorded on the partitions of the run that evaluated it and is about all of them:
once it passed on any, it is open. Until then it holds back those that it was recorded on, and those that were
built since it last passed, or since it was first evaluated if it never did.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from t2.ledger.apply import chunks
from t2.ledger.schema import check_totals, checks, failing_now, partitions
from t2.project.model import Project, Test

_FAILING = (
    sa.select(
        checks.c.table_key,
        checks.c.partition,
        checks.c.check_name,
        checks.c.event_id,
        checks.c.run_id,
        checks.c.blocking,
        checks.c.test,
        checks.c.failed_rows,
        sa.func.coalesce(partitions.c.event_id, 0).label("landed_id"),
        partitions.c.run_id.label("landed_by"),
    )
    .outerjoin(
        partitions,
        sa.and_(partitions.c.table_key == checks.c.table_key, partitions.c.partition == checks.c.partition),
    )
    .where(failing_now)
    .order_by(checks.c.table_key, checks.c.check_name, checks.c.event_id)
)


@dataclass(frozen=True)
class Gate:
    """A failed check. `held`: the tables that it holds back, None all that read the partition.

    `partitions`: those that it failed on, each with its count of failing rows where known, in the order of
    the events. `since`: what was built after this event id is held back too, None for a check of partitions.
    """

    check: str
    held: tuple[str, ...] | None
    partitions: Mapping[str, int | None]
    since: int | None = None

    def shuts(self, partition: str, landed_id: int) -> bool:
        """Whether it holds back readers of a partition that was built at an event id."""
        return partition in self.partitions or (self.since is not None and landed_id > self.since)

    def text(self, partition: str) -> str:
        """Return the check's name, with its count of failing rows where known."""
        newest = list(self.partitions.values())[-1]
        return with_rows(self.check, self.partitions.get(partition, newest))


def with_rows(check: str, rows: int | None) -> str:
    """Return a check's name with its count of failing rows where known: "not_null_x (3 rows)"."""
    return check if rows is None else f"{check} ({rows:,} row{'' if rows == 1 else 's'})"


def gates(connection: Connection, project: Project, keys: Collection[str] | None) -> dict[str, list[Gate]]:
    """Return the closed gates of some tables and sources, of all without `keys`."""
    failing: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for query in [_FAILING] if keys is None else [_of(keys_, _FAILING) for keys_ in chunks(keys)]:
        rows: Iterable[Any] = connection.execute(query)
        for row in rows:
            failing[row.table_key][row.check_name].append(row)
    nodes = {node.key: node for node in project.nodes()}
    found: dict[str, list[Gate]] = {}
    for key, by_check in failing.items():
        tests = {test.name: test for test in nodes[key].tests} if key in nodes else {}
        whole = {name for name, test in tests.items() if nodes[key].partitioning and not test.per_partition}
        totals = _totals(connection, key) if whole & by_check.keys() else {}
        closed = (
            _gate(tests.get(check), check, rows, totals.get(check) if check in whole else None)
            for check, rows in by_check.items()
        )
        found[key] = [gate for gate in closed if gate is not None]
    return found


def _of(keys: Collection[str], query: sa.Select[Any]) -> sa.Select[Any]:
    return query.where(checks.c.table_key.in_(keys))


def _totals(connection: Connection, key: str) -> dict[str, Any]:
    rows: Iterable[Any] = connection.execute(sa.select(check_totals).where(check_totals.c.table_key == key))
    return {row.check_name: row for row in rows}


def _gate(test: Test | None, check: str, rows: list[Any], total: Any) -> Gate | None:
    since = None
    if test is None:
        rows = [row for row in rows if not row.test and row.blocking and _stands(row)]
    elif total is not None:
        rows = [row for row in rows if row.event_id > total.passed_as_of]
        since = total.passed_as_of or total.first_id
    if not rows or (test is not None and test.held == ()):
        return None
    return Gate(check, test.held if test else None, {row.partition: row.failed_rows for row in rows}, since)


def _stands(row: Any) -> bool:
    """Whether the partition was not built since without this check."""
    return bool(row.event_id > row.landed_id or row.run_id == row.landed_by)
