"""How each `incremental_strategy` of `materialized: partitioned` writes, on three warehouses."""

from __future__ import annotations

import random

import pytest
from tests.dbt_package.projects import days
from tests.dbt_package.run import execute, leftovers, rows, run

from t2.errors import NodeFailed
from t2.project.model import Project
from t2.runtime.warm import Warm


@pytest.fixture(params=["duckdb", "postgres", "bigquery"])
def project(request: pytest.FixtureRequest) -> Project:
    """The project on each warehouse."""
    found: Project = request.getfixturevalue(f"{request.param}_project")
    return found


def failure(warm: Warm, name: str, keys: list[str]) -> str:
    with pytest.raises(NodeFailed) as caught:
        run(warm, name, keys)
    return caught.value.message


@pytest.mark.parametrize("name", ["replaced", "appended"])
def test_a_partition_built_again_is_replaced_and_never_doubled(site: Warm, name: str) -> None:
    assert run(site, name, days(1, 3)).rows_affected == 6
    execute(site, "delete from raw.visits where visitor = 2")
    assert run(site, name, days(2)).rows_affected == 1
    counts = rows(site, f"select day, count(*) from {name} group by day order by day")
    assert counts == [("2024-01-01", 2), ("2024-01-02", 1), ("2024-01-03", 2)]


@pytest.mark.parametrize("project", ["duckdb", "postgres"], indirect=True)
def test_append_deletes_only_where_there_are_rows(site: Warm) -> None:
    statements: list[str] = []
    original = site._dbt._adapter.connections.add_query

    def record(sql: str, *args: object, **options: object) -> object:
        statements.append(sql)
        return original(sql, *args, **options)

    site._dbt._adapter.connections.add_query = record
    try:
        run(site, "appended", days(1))
        assert not [sql for sql in statements if "delete from" in sql]
        run(site, "appended", days(1))
        assert [sql for sql in statements if "delete from" in sql]
    finally:
        site._dbt._adapter.connections.add_query = original


def test_a_merge_in_any_order_and_again_finds_first_and_last(site: Warm) -> None:
    for day in (4, 2, 6, 2, 3, 4):
        run(site, "visitors", days(day))
    found = rows(site, "select visitor, first_seen, last_seen, most, site, noted from visitors order by 1")
    assert found == [
        # site is that of the latest day, noted what was written first: on the 4th
        (0, "2024-01-02", "2024-01-06", 6, "site 6", "2024-01-04"),
        (2, "2024-01-02", "2024-01-02", 1, "site 0", "2024-01-02"),
        (3, "2024-01-03", "2024-01-03", 1, "site 0", "2024-01-03"),
        (4, "2024-01-04", "2024-01-04", 1, "site 0", "2024-01-04"),
        (6, "2024-01-06", "2024-01-06", 1, "site 0", "2024-01-06"),
    ]


def test_a_merge_of_random_rows_in_random_order_is_what_one_query_says(site: Warm) -> None:
    chance = random.Random(1)
    execute(site, "delete from raw.visits")
    values = ", ".join(
        f"({chance.randrange(5)}, 's{chance.randrange(2)}', {chance.choice(['null', 1, 2, 3, -4])},"
        f" date '2024-01-{chance.randrange(1, 9):02d}')"
        for _ in range(60)
    )
    execute(site, f"insert into raw.visits values {values}")
    order = [days(day) for day in range(1, 9)] + [days(3), days(2, 5), days(7, 8)]
    chance.shuffle(order)
    for keys in order:
        run(site, "spans", keys)
    whole = "select visitor, site, min(day) as a, max(day) as b, max(pages) as c from raw.visits"
    assert rows(site, f"select * from ({whole} group by 1, 2) as q order by 1, 2") == rows(
        site, "select visitor, site, first_seen, last_seen, most from spans order by 1, 2"
    )


def test_a_null_never_wins(site: Warm) -> None:
    execute(site, "update raw.visits set pages = null where day = '2024-01-02'")
    for day in (2, 1, 2):
        run(site, "visitors", days(day))
    assert rows(site, "select visitor, most from visitors order by 1") == [(0, 1), (1, 1), (2, None)]


def test_dbts_own_choice_of_columns_is_kept(site: Warm) -> None:
    for name in ("updated", "excluded"):
        for day in (1, 3, 2):
            run(site, name, days(day))
        # The row of the 3rd is later than that of the 2nd, so it stays.
        assert rows(site, f"select day, site from {name} where visitor = 0") == [("2024-01-03", "site 1")]


def test_predicates_bound_what_a_merge_finds(site: Warm) -> None:
    run(site, "guarded", days(1))
    execute(site, "update guarded set site = null where visitor = 0")
    run(site, "guarded", days(2))
    assert rows(site, "select site from guarded where visitor = 0 order by 1 nulls last") == [
        ("site 2",),
        (None,),
    ]


def test_a_key_that_comes_twice_is_refused_with_an_example(site: Warm) -> None:
    execute(site, "insert into raw.visits values (2, 'site 0', 5, '2024-01-02')")
    execute(site, "delete from raw.visits where day <> '2024-01-02'")
    assert (
        "untidy_merge: the key (visitor, site) is not unique in the new rows, nothing written:"
        " visitor = 2, site = site 0 comes 2 times. Make the SQL return one row a key"
    ) in failure(site, "untidy_merge", days(2))
    assert rows(site, "select count(*) from untidy_merge") == [(0,)]
    assert leftovers(site) == []


def test_a_key_that_is_null_is_refused(site: Warm) -> None:
    execute(site, "update raw.visits set visitor = null where visitor = 2")
    assert "visitors: 1 rows without a key, nothing written: visitor is null" in failure(
        site, "visitors", days(2)
    )


@pytest.mark.parametrize("name", ["untidy", "untidy_merge"])
def test_rows_outside_of_the_window_are_refused_by_every_strategy(site: Warm, name: str) -> None:
    execute(site, "insert into raw.visits values (98, 'site 9', 1, null)")
    assert (
        f"{name}: 11 of 13 rows refused, nothing written: day is outside of "
        "[2024-01-02 00:00:00, 2024-01-03 00:00:00) (for 1 of them day is null)"
    ) in failure(site, name, days(2))
    assert rows(site, f"select count(*) from {name}") == [(0,)]
    assert leftovers(site) == []


def test_a_range_that_depends_on_its_order_is_refused_in_one_statement(site: Warm) -> None:
    """T2 builds such tables one by one; it cannot see a column that is not documented."""
    table = next(table for table in site.project.tables.values() if table.name == "undocumented")
    assert not table.merges_in_order
    assert (
        "undocumented: one statement merges several partitions, and site (replace) depends on their order."
    ) in failure(site, "undocumented", days(1, 2))
    run(site, "undocumented", days(2))


def test_tables_know_whether_their_merges_need_an_order(site: Warm) -> None:
    needs = {table.name for table in site.project.tables.values() if table.merges_in_order}
    assert needs == {"visitors", "updated", "excluded", "guarded", "untidy_merge"}


def test_plain_dbt_merges_all_there_is_and_then_the_last_days(site: Warm) -> None:
    result = site.run("model.site.spans")
    assert (result.status, result.rows_affected) == ("success", 12)
    assert site.run("model.site.spans").rows_affected == 0
    assert site.run("model.site.spans", full_refresh=True).rows_affected == 12
    assert rows(site, "select count(*) from spans") == [(12,)]


def test_plain_dbt_names_the_nearest_strategy(site: Warm) -> None:
    for wrong, near in {"overwrite": ". Did you mean insert_overwrite?", "delete+insert": ""}.items():
        node = site._dbt.manifest.nodes["model.site.replaced"]
        node.config.incremental_strategy = wrong
        try:
            message = site.run("model.site.replaced").message
        finally:
            node.config.incremental_strategy = None
        assert (
            f"replaced: materialized='partitioned' knows no incremental_strategy='{wrong}';"
            f" valid: insert_overwrite, append, merge{near}"
        ) in message
