"""What dbt does around a table keeps working with `materialized: partitioned`, on both warehouses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.dbt_package.projects import days
from tests.dbt_package.run import execute, leftovers, rows, run

from t2.errors import NodeFailed
from t2.runtime.warm import Warm


def columns(warm: Warm, table: str) -> list[str]:
    sql = f"select column_name from information_schema.columns where table_name = '{table}' order by 1"
    return [name for (name,) in rows(warm, sql)]


def widen(warm: Warm) -> None:
    """What the SQL returns has a new column from now on, a longer text, and lacks another column."""
    execute(warm, "alter table raw.wide add column c integer default 7")
    execute(warm, "alter table raw.wide drop column a")
    execute(warm, "alter table raw.wide alter column b type varchar(9)")
    execute(warm, "update raw.wide set b = 'abcdefghi' where day >= '2024-01-02'")


@pytest.mark.parametrize("built", [0, 1])
def test_hooks_run_in_dbts_order_inside_and_outside_of_the_transaction(site: Warm, built: int) -> None:
    """Also when the table has to be made first."""
    for day in range(1, built + 1):
        run(site, "hooked", days(day))
    execute(site, "delete from raw.log")
    run(site, "hooked", days(3))
    assert rows(site, "select hook from raw.log") == [
        ("pre outside 0",),
        ("pre inside 1",),
        ("post inside 2",),
        ("post outside 3",),
    ]
    # What a hook inside of the transaction writes is there for the model's SQL.
    assert rows(site, "select hook from hooked where day = '2024-01-03'") == [("pre inside 1",)]
    assert leftovers(site) == []


def test_a_failing_hook_takes_back_the_partition_and_the_hooks_before_it(site: Warm) -> None:
    with pytest.raises(NodeFailed, match="no_such_table"):
        run(site, "hooks_fail", days(1))
    assert rows(site, "select * from raw.log") == []
    assert rows(site, "select * from hooks_fail") == []
    assert leftovers(site) == []


def test_grants_are_given_and_taken(postgres_site_warm: Warm) -> None:
    """PostgreSQL only: DuckDB has no users, and its adapter ignores grants."""
    warm = postgres_site_warm
    granted = (
        "select grantee || ' ' || privilege_type as what from information_schema.role_table_grants"
        " where table_name = 'granted' and grantee = 'reader' order by 1"
    )
    run(warm, "granted", days(1))
    assert rows(warm, granted) == [("reader SELECT",)]
    execute(warm, "grant insert on granted to reader; revoke select on granted from reader")
    run(warm, "granted", days(2))
    assert rows(warm, granted) == [("reader SELECT",)]
    warm.run("model.site.granted", full_refresh=True)
    assert rows(warm, granted) == [("reader SELECT",)]


def test_a_contract_is_the_tables_definition(site: Warm) -> None:
    run(site, "contracted", days(1))
    nullable = (
        "select is_nullable from information_schema.columns where table_name = 'contracted'"
        " order by column_name"
    )
    assert rows(site, nullable) == [("NO",), ("YES",)]
    with pytest.raises(Exception, match=r"(?i)check constraint"):
        execute(site, "insert into contracted values ('2024-01-01', -1)")


def test_a_broken_contract_is_refused_for_a_new_table_and_for_one_that_is_there(site: Warm) -> None:
    for _ in range(2):
        with pytest.raises(NodeFailed, match="This model has an enforced contract that failed"):
            run(site, "broken_contract", days(1))
        execute(site, "create table if not exists broken_contract (day date, visits varchar(9))")
        site.close()
    assert rows(site, "select * from broken_contract") == []


def test_a_constraint_that_fails_takes_the_partition_back(site: Warm) -> None:
    run(site, "contracted", days(1))
    execute(site, "update raw.visits set pages = -pages where day >= '2024-01-02'")
    with pytest.raises(NodeFailed, match=r"(?i)check constraint"):
        run(site, "contracted", days(1, 2))
    assert rows(site, "select day, pages from contracted") == [("2024-01-01", 2)]
    assert leftovers(site) == []


def test_on_schema_change_ignore_fails_when_a_column_is_missing(site: Warm) -> None:
    run(site, "ignore", days(1))
    execute(site, "alter table raw.wide add column c integer default 7")
    run(site, "ignore", days(2))
    assert columns(site, "ignore") == ["a", "b", "day"]
    execute(site, "alter table raw.wide drop column a")
    with pytest.raises(NodeFailed, match=r'(?i)"a"'):
        run(site, "ignore", days(3))
    assert rows(site, "select a from ignore order by 1") == [(1,), (2,)]


def test_on_schema_change_append_new_columns_keeps_the_old_ones(site: Warm) -> None:
    run(site, "append_new", days(1))
    widen(site)
    run(site, "append_new", days(2, 3))
    assert rows(site, "select day, a, b, c from append_new order by 1") == [
        ("2024-01-01", 1, "abc", None),
        ("2024-01-02", None, "abcdefghi", 7),
        ("2024-01-03", None, "abcdefghi", 7),
    ]


def test_on_schema_change_sync_all_columns_drops_the_old_ones(site: Warm) -> None:
    run(site, "sync_all", days(1))
    widen(site)
    run(site, "sync_all", days(2))
    assert columns(site, "sync_all") == ["b", "c", "day"]
    assert rows(site, "select day, b, c from sync_all order by 1") == [
        ("2024-01-01", "abc", None),
        ("2024-01-02", "abcdefghi", 7),
    ]


def test_on_schema_change_fail_fails(site: Warm) -> None:
    run(site, "fail", days(1))
    widen(site)
    with pytest.raises(NodeFailed, match="schemas on this incremental model are out of sync"):
        run(site, "fail", days(2))
    assert rows(site, "select count(*) from fail") == [(1,)]


def comments(warm: Warm) -> list[tuple[str | None]]:
    if warm.adapter_type == "duckdb":
        return rows(
            warm,
            "select comment from duckdb_tables() where table_name = 'documented' union all select comment"
            " from duckdb_columns() where table_name = 'documented' and column_name = 'visitor'",
        )
    return rows(
        warm,
        "select obj_description('documented'::regclass) union all"
        " select col_description('documented'::regclass, 1)",
    )


def test_documentation_is_persisted_and_renewed(site: Warm) -> None:
    expected = [("Visits, as they came",), ("Who came",)]
    run(site, "documented", days(1))
    assert comments(site) == expected
    execute(site, "comment on column documented.visitor is 'old'")
    run(site, "documented", days(2))
    assert comments(site) == expected


def test_indexes_are_made_with_the_table_and_hold(site: Warm) -> None:
    run(site, "indexed", days(1, 3))
    in_duckdb, in_postgres = "duckdb_indexes() where table_name", "pg_indexes where tablename"
    found = in_duckdb if site.adapter_type == "duckdb" else in_postgres
    assert rows(site, f"select count(*) from {found} = 'indexed'") == [(2,)]
    execute(site, "insert into raw.visits values (7, 'site 7', 1, '2024-01-02')")
    run(site, "indexed", days(2))
    site.run("model.site.indexed", full_refresh=True)
    assert rows(site, "select count(*) from indexed") == [(13,)]
    assert rows(site, f"select count(*) from {found} = 'indexed'") == [(2,)]
    execute(site, "insert into raw.visits values (7, 'site 7', 1, '2024-01-02')")
    with pytest.raises(NodeFailed, match=r"(?i)duplicate key"):
        run(site, "indexed", days(2))
    assert rows(site, "select count(*) from indexed") == [(13,)]


def test_sql_headers_precede_the_query(site: Warm) -> None:
    run(site, "headed", days(2))
    run(site, "headed", days(3))
    assert rows(site, "select day, pages from headed order by 1, 2") == [
        ("2024-01-02", 2),
        ("2024-01-02", 4),
        ("2024-01-03", 2),
        ("2024-01-03", 6),
    ]


def test_alias_schema_and_quoting_are_those_of_dbt(site: Warm) -> None:
    schema = "main_other" if site.adapter_type == "duckdb" else "public_other"
    run(site, "renamed", days(1))
    run(site, "renamed", days(1, 2))
    assert rows(site, f'select count(*) from {schema}."Mixed Case"') == [(4,)]


def test_a_view_and_a_materialized_view_give_way_to_the_table(site: Warm) -> None:
    kinds = ["view"] + (["materialized view"] if site.adapter_type == "postgres" else [])
    for kind in kinds:
        execute(site, f"create {kind} replaced as select 1 as x")
        site.close()
        run(site, "replaced", days(1))
        assert rows(site, "select count(*) from replaced") == [(2,)]
        execute(site, "drop table replaced")
        site.close()


def test_a_full_refresh_by_t2_keeps_the_other_partitions_by_dbt_makes_all_anew(site: Warm) -> None:
    run(site, "appended", days(1, 2))
    run(site, "appended", days(2), full_refresh=True)
    assert rows(site, "select count(*) from appended") == [(4,)]
    execute(site, "alter table appended add column old integer")
    assert site.run("model.site.appended", full_refresh=True).rows_affected == 12
    assert columns(site, "appended") == ["day", "pages", "site", "visitor"]


def at_once(warm: Warm, name: str, numbers: range, **options: bool) -> None:
    """Build a day each by as many threads."""
    with ThreadPoolExecutor(len(numbers)) as pool:
        for done in [pool.submit(run, warm, name, days(day), **options) for day in numbers]:
            done.result()


def test_full_refreshes_of_many_partitions_at_once_lose_none(site: Warm) -> None:
    for _ in range(2):
        at_once(site, "appended", range(1, 7), full_refresh=True)
        assert rows(site, "select day, count(*) from appended group by day order by day") == [
            (day, 2) for day in days(1, 6)
        ]


def test_builds_at_once_share_a_change_of_columns(site: Warm) -> None:
    execute(site, "insert into raw.wide select day + 3, a + 3, b from raw.wide")
    at_once(site, "append_new", range(1, 3))
    widen(site)
    at_once(site, "append_new", range(2, 7))
    assert rows(site, "select day, c from append_new order by day") == [
        ("2024-01-01", None),
        *((day, 7) for day in days(2, 6)),
    ]


def test_builds_at_once_grant_and_comment_on_a_new_table(site: Warm) -> None:
    """PostgreSQL fails the second of two that do so at the same time."""
    for name in ("granted", "documented"):
        at_once(site, name, range(1, 7))
        assert rows(site, f"select count(*) from {name}") == [(12,)]
    assert comments(site) == [("Visits, as they came",), ("Who came",)]
