"""Building tables of the tests' project and looking at them."""

from __future__ import annotations

from datetime import date
from typing import Any

from tests.dbt_package.projects import NOW

from t2.runtime.build import build
from t2.runtime.warm import Warm


def run(warm: Warm, name: str, keys: list[str], **options: Any) -> Any:
    """Build partitions of a table, in one statement if T2 does so; return the last result."""
    table = next(table for table in warm.project.tables.values() if table.name == name)
    return list(build(warm, table, keys, tests=(), now=NOW, **options))[-1].result


def rows(warm: Warm, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query, dates as text."""
    found = [tuple(row.values()) for row in warm.query(sql)]
    return [tuple(str(value) if isinstance(value, date) else value for value in row) for row in found]


def execute(warm: Warm, sql: str) -> None:
    """PostgreSQL's connections begin a transaction: what a query changes is committed here."""
    warm.query(f"{sql}; {'commit;' if warm.adapter_type == 'postgres' else ''} select 1 as done")


def leftovers(warm: Warm) -> list[tuple[Any, ...]]:
    """Return the temporary relations that the warehouse holds."""
    if warm.adapter_type == "bigquery":
        adapter = warm._dbt._adapter
        with adapter.connection_named("t2_test"):
            relation = adapter.Relation.create(database="proj", schema="main")
            names = [found.identifier for found in adapter.list_relations_without_caching(relation)]
        return [(name,) for name in names if "__t2_" in name and not name.endswith("__t2_turn")]
    if warm.adapter_type == "postgres":
        return rows(warm, "select relname from pg_class where relpersistence = 't' or relname ~ '__t2_'")
    return rows(
        warm, "select table_name from duckdb_tables() where temporary or contains(table_name, '__t2_')"
    )
