"""The statements of a day from a script: what the warehouse alone needs for them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from benchmarks.synthetic import Shape, load_raw
from t2.project.model import Project, Table
from t2.runtime.windows import predicate

KINDS = {dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_CHECK_EVALUATION}


def bare_seconds(instance: dg.DagsterInstance, project: Project, size: Shape, since: float) -> float:
    """Replay the SQL of all tables and tests, run by run, on raw tables of their own.

    Views do not count, nor do runs from before `since` (epoch seconds).
    """
    import duckdb

    with tempfile.TemporaryDirectory() as folder:
        load_raw(size, Path(folder), size.begin, days=2)
        with duckdb.connect(str(Path(folder) / "warehouse.duckdb")) as connection:
            connection.execute("create schema if not exists analytics")
            seconds = 0.0
            for counts, sql in _statements(instance, project, since):
                started = time.perf_counter()
                connection.execute(sql).fetchall()
                seconds += (time.perf_counter() - started) if counts else 0.0
            return round(seconds, 2)


def _statements(instance: dg.DagsterInstance, project: Project, since: float) -> Iterator[tuple[bool, str]]:
    """Yield (whether it counts, statement); SQL that proved several tests at once comes once."""
    for record in reversed(instance.get_run_records()):
        last, counts = "", record.create_timestamp.timestamp() >= since
        for entry in instance.all_logs(record.dagster_run.run_id, of_type=KINDS):
            event = entry.dagster_event
            assert event is not None
            if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION:
                made = event.step_materialization_data.materialization
                table = project.tables["/".join(made.asset_key.path)]
                sql = _sql(made.metadata)
                for statement in _build(table, sql, made.partition):
                    yield counts and not table.is_view, statement
            else:
                sql = _sql(event.asset_check_evaluation_data.metadata)
                if sql != last:
                    yield counts, f"select count(*) from (\n{sql}\n) as failing"
                last = sql


def _build(table: Table, sql: str, partition: str | None) -> Iterator[str]:
    if table.is_view:
        yield f"create view {table.relation} as (\n{sql}\n)"
    elif partition is None:
        yield f"create or replace table {table.relation} as (\n{sql}\n)"
    else:
        yield f"create table if not exists {table.relation} as select * from (\n{sql}\n) where false"
        yield f"create or replace temporary table built as (\n{sql}\n)"
        yield "begin"
        yield f"delete from {table.relation} where {predicate(table, partition, partition)}"
        yield f"insert into {table.relation} by name select * from built"
        yield "commit"


def _sql(metadata: dict[str, dg.MetadataValue]) -> str:
    fenced = str(metadata["t2/compiled_sql"].value)
    return fenced.removeprefix("```sql\n").removesuffix("\n```").rstrip(";")
