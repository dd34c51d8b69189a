"""What the macros of `partitioned` assume of DuckDB and of PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from tests.dbt_package.run import rows

from t2.runtime.warm import Warm

MARK = "create table marker (x integer); drop table marker"


@pytest.mark.parametrize("committed", [False, True])
def test_duckdb_lets_one_of_two_overlapping_transactions_make_and_drop_a_table(
    tmp_path: Path, committed: bool
) -> None:
    """What makes merges of one table conflict, also when the other has ended and left nothing."""
    with duckdb.connect(str(tmp_path / "x.duckdb")) as connection:
        one, other = connection.cursor(), connection.cursor()
        one.execute("begin; select count(*) from duckdb_tables()").fetchall()
        other.execute("begin; select count(*) from duckdb_tables()").fetchall()
        one.execute(MARK)
        if committed:
            one.execute("commit")
        with pytest.raises(duckdb.TransactionException, match="write-write conflict"):
            other.execute(MARK)
        other.execute("rollback")
        other.execute("begin")
        if committed:
            other.execute(MARK)
            other.execute("commit")
        assert connection.execute("select table_name from duckdb_tables()").fetchall() == []


def test_duckdb_lets_two_transactions_insert_the_same_key(tmp_path: Path) -> None:
    """Why merges need that."""
    with duckdb.connect(str(tmp_path / "x.duckdb")) as connection:
        connection.execute("create table t (x integer)")
        cursors = [connection.cursor(), connection.cursor()]
        for cursor in cursors:
            cursor.execute("begin")
            cursor.execute(
                "merge into t using (select 1 as x) as s on t.x = s.x when not matched then insert"
            )
        for cursor in cursors:
            cursor.execute("commit")
        assert connection.execute("select count(*) from t").fetchone() == (2,)


def test_postgres_takes_the_locks_of_a_subquery_in_its_order(postgres_site_warm: Warm) -> None:
    """All builds lock partitions in the order of the numbers: two cannot wait for each other."""
    plan = rows(
        postgres_site_warm,
        "explain select pg_advisory_xact_lock(1, number) from ("
        " select distinct hashtext(start) as number from unnest(array['a', 'b', 'c']) as start"
        " order by number offset 0) as numbers",
    )
    nodes = [line.strip().removeprefix("->").split("(")[0].strip() for (line,) in plan]
    assert nodes[0].startswith("Subquery Scan")
    assert nodes[1] in ("Sort", "Unique")
