"""The ledger's tables, in the same database as Dagster's event log.

Everything but `t2_cursor` and `t2_touched` is a function of the set of events in the log: the order in which
they were applied, and how often, does not show. `table_key` is "schema/name", `partition` "" for a table
that has none, `*_id` an event id (0: not yet), `*_at` epoch seconds.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

VERSION = 3

metadata = sa.MetaData()

_ID = sa.BigInteger


def _table(name: str, *columns: sa.schema.SchemaItem) -> sa.Table:
    # WITHOUT ROWID keeps the row in the primary key's tree: half the pages to write and to read.
    return sa.Table(name, metadata, *columns, sqlite_with_rowid=False)


# One row. `position`: every event up to this id is applied. `mark`: what the event `mark_id` looked like, to
# see that the log is still the same. `seq` counts changes, `epoch` rebuilds; one is over at `rebuild_to`.
cursor = _table(
    "t2_cursor",
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("position", _ID, nullable=False),
    sa.Column("mark_id", _ID, nullable=False),
    sa.Column("mark", sa.Text, nullable=False),
    sa.Column("seq", _ID, nullable=False),
    sa.Column("epoch", _ID, nullable=False),
    sa.Column("rebuild_to", _ID, nullable=False),
)

# When a table's rows last changed (`seq`), and last changed by taking rows away (`reset_seq`).
touched = _table(
    "t2_touched",
    sa.Column("table_key", sa.Text, primary_key=True),
    sa.Column("seq", _ID, nullable=False),
    sa.Column("reset_seq", _ID, nullable=False),
)

runs = _table(
    "t2_runs",
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("status_id", _ID, nullable=False),
    sa.Column("started_id", _ID, nullable=False),
    sa.Column("started_at", sa.Float(53), nullable=False),
    sa.Column("ended_id", _ID, nullable=False),
    sa.Column("ended_at", sa.Float(53), nullable=False),
)

# What a run was to build (`planned_id`), built, failed or skipped by its own word, and saw blocked.
# `complete`: it was built, and every check that its run planned was evaluated on it or that run succeeded.
targets = _table(
    "t2_targets",
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("table_key", sa.Text, primary_key=True),
    sa.Column("partition", sa.Text, primary_key=True),
    sa.Column("planned_id", _ID, nullable=False),
    sa.Column("built_id", _ID, nullable=False),
    sa.Column("failed_id", _ID, nullable=False),
    sa.Column("skipped_id", _ID, nullable=False),
    sa.Column("blocked_id", _ID, nullable=False),
    sa.Column("complete", sa.Boolean, nullable=False),
)

planned_checks = _table(
    "t2_planned_checks",
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("table_key", sa.Text, primary_key=True),
    sa.Column("check_name", sa.Text, primary_key=True),
)

# The newest materialization of each partition.
partitions = _table(
    "t2_partitions",
    sa.Column("table_key", sa.Text, primary_key=True),
    sa.Column("partition", sa.Text, primary_key=True),
    sa.Column("event_id", _ID, nullable=False),
    sa.Column("at", sa.Float(53), nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("code_version", sa.Text, nullable=False),
    sa.Column("as_of", _ID, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
)

# The newest evaluation of each check on each partition. `fails`: it failed as an ERROR. `test`: see events.
checks = _table(
    "t2_checks",
    sa.Column("table_key", sa.Text, primary_key=True),
    sa.Column("partition", sa.Text, primary_key=True),
    sa.Column("check_name", sa.Text, primary_key=True),
    sa.Column("event_id", _ID, nullable=False),
    sa.Column("at", sa.Float(53), nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("passed", sa.Boolean, nullable=False),
    sa.Column("severity", sa.Text, nullable=False),
    sa.Column("blocking", sa.Boolean, nullable=False),
    sa.Column("fails", sa.Boolean, nullable=False),
    sa.Column("test", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("failed_rows", _ID),
)

# All evaluations of a check, on whichever partitions: the newest, what the newest that passed had seen
# (`passed_as_of`, 0: none passed yet), and the first.
check_totals = _table(
    "t2_check_totals",
    sa.Column("table_key", sa.Text, primary_key=True),
    sa.Column("check_name", sa.Text, primary_key=True),
    sa.Column("event_id", _ID, nullable=False),
    sa.Column("at", sa.Float(53), nullable=False),
    sa.Column("passed_as_of", _ID, nullable=False),
    sa.Column("first_id", _ID, nullable=False),
)

# The attempts that a run itself reported as failed; those that died or were canceled follow from `targets`.
failures = _table(
    "t2_failures",
    sa.Column("table_key", sa.Text, primary_key=True),
    sa.Column("partition", sa.Text, primary_key=True),
    sa.Column("event_id", _ID, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Float(53), nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("as_of", _ID, nullable=False),
    sa.Column("code_version", sa.Text, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
)

# When a table was last wiped: what happened to it up to then counts no longer.
wipes = _table(
    "t2_wipes",
    sa.Column("table_key", sa.Text, primary_key=True),
    sa.Column("at", sa.Float(53), nullable=False),
)

DERIVED = (runs, targets, planned_checks, partitions, checks, check_totals, failures, wipes)

incomplete = targets.c.complete.is_(sa.false())
failing_now = checks.c.fails.is_(sa.true())

sa.Index("t2_targets_built", targets.c.table_key, targets.c.partition, targets.c.built_id)
# Partial: what is incomplete or blocked is little, what was ever built is a lot.
sa.Index(
    "t2_targets_incomplete",
    targets.c.table_key,
    targets.c.partition,
    sqlite_where=incomplete,
    postgresql_where=incomplete,
)
sa.Index(
    "t2_checks_failing",
    checks.c.table_key,
    checks.c.partition,
    sqlite_where=failing_now,
    postgresql_where=failing_now,
)
sa.Index("t2_runs_status", runs.c.status)

# Dagster's tables, as far as the ledger reads them. Untyped: the values come as the driver has them.
event_logs = sa.table(
    "event_logs",
    sa.column("id", sa.BigInteger),
    sa.column("run_id", sa.Text),
    sa.column("event", sa.Text),
    sa.column("dagster_event_type", sa.Text),
    sa.column("timestamp"),
)
asset_keys = sa.table("asset_keys", sa.column("asset_key", sa.Text), sa.column("asset_details", sa.Text))


def prepare(connection: Connection) -> None:
    """Create the ledger's tables in a write transaction; tables of another version are dropped first."""
    if connection.dialect.name == "postgresql":
        # Two processes that create the same table at once would fail: the first one wins this lock.
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext("t2_ledger"))))
    if sa.inspect(connection).has_table(cursor.name):
        if connection.scalar(sa.select(cursor.c.version)) == VERSION:
            return
        metadata.drop_all(connection)
    metadata.create_all(connection)
    head = connection.scalar(sa.select(sa.func.max(event_logs.c.id))) or 0
    connection.execute(
        cursor.insert(),
        {
            "id": 1,
            "version": VERSION,
            "position": 0,
            "mark_id": 0,
            "mark": "",
            "seq": 1,
            "epoch": 1,
            "rebuild_to": head,
        },
    )
