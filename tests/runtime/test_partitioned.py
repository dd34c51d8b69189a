"""The materialization `partitioned`, on DuckDB and on PostgreSQL."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.runtime.projects import NOW, days

from t2.errors import NodeFailed
from t2.project.model import Project
from t2.runtime.build import build
from t2.runtime.warm import Warm


@pytest.fixture(params=["duckdb", "postgres"])
def shop(request: pytest.FixtureRequest) -> Warm:
    warm: Warm = request.getfixturevalue("warm" if request.param == "duckdb" else "postgres_warm")
    return warm


def run(warm: Warm, name: str, keys: list[str], **options: Any) -> Any:
    table = next(table for table in warm.project.tables.values() if table.name == name)
    return next(build(warm, table, keys, tests=(), now=NOW, **options)).result


def rows(warm: Warm, sql: str) -> list[tuple]:
    return [tuple(row.values()) for row in warm.query(sql)]


def execute(warm: Warm, sql: str) -> None:
    """PostgreSQL's connections begin a transaction: what a query changes is committed here."""
    warm.query(f"{sql}; {'commit;' if warm.adapter_type == 'postgres' else ''} select 1 as done")


def test_partitions_are_replaced_whole_and_others_left_alone(shop: Warm) -> None:
    assert run(shop, "orders", days(1, 3)).rows_affected == 6
    execute(shop, "delete from raw.orders where id in (4, 6, 7)")
    assert run(shop, "orders", days(2)).rows_affected == 1
    assert rows(shop, "select id from orders order by id") == [(2,), (3,), (5,), (6,), (7,)]


def test_rows_outside_of_the_window_are_refused_and_nothing_is_written(shop: Warm) -> None:
    execute(shop, "insert into raw.orders values (98, 1, null, null)")
    with pytest.raises(NodeFailed) as caught:
        run(shop, "untidy", days(2, 3))
    assert (
        "untidy: 9 of 13 rows refused, nothing written: ordered_on is outside of "
        "[2024-01-02 00:00:00, 2024-01-04 00:00:00) (for 1 of them ordered_on is null)"
    ) in caught.value.message
    assert rows(shop, "select count(*) from untidy") == [(0,)]


def test_rows_without_an_event_time_are_refused(shop: Warm) -> None:
    execute(shop, "update raw.orders set ordered_on = null where id = 4")
    execute(shop, "delete from raw.orders where ordered_on <> '2024-01-02'")
    with pytest.raises(NodeFailed, match="untidy: 1 of 2 rows refused, nothing written: ordered_on is null"):
        run(shop, "untidy", days(2))


def test_contracts_hooks_and_new_columns(shop: Warm) -> None:
    run(shop, "orders", days(1, 2))
    run(shop, "strict", days(1))
    execute(shop, "alter table strict drop column rows_")
    run(shop, "strict", days(2))
    assert rows(shop, "select ordered_on, rows_ from strict order by 1")[0][1] is None
    assert rows(shop, "select name, count(*) from raw.hooks group by 1 order by 1") == [
        ("post", 2),
        ("pre", 2),
    ]
    columns = (
        "select is_nullable from information_schema.columns where table_name = 'strict' order by column_name"
    )
    assert rows(shop, columns) == [("NO",), ("YES",)]


def test_a_full_refresh_of_one_partition_keeps_the_others(shop: Warm) -> None:
    run(shop, "orders", days(1, 2))
    run(shop, "orders", days(2), full_refresh=True)
    assert rows(shop, "select count(*) from orders") == [(4,)]


def test_a_view_gives_way_to_the_table(shop: Warm) -> None:
    execute(shop, "create view orders as select 1 as x")
    run(shop, "orders", days(1))
    assert rows(shop, "select count(*) from orders") == [(2,)]


def test_without_t2_a_new_table_gets_everything_since_begin(shop: Warm) -> None:
    """What a plain `dbt run` does: no variables at all."""
    result = shop.run("model.shop.orders")
    assert (result.status, result.rows_affected) == ("success", 12)
    # The table is there, so the next run builds the last two partitions, which have no rows any more.
    assert shop.run("model.shop.orders").rows_affected == 0
    assert rows(shop, "select count(*) from orders") == [(12,)]


def test_without_t2_a_window_can_be_given_by_variables(shop: Warm) -> None:
    given = {"t2_start": "2024-01-02", "t2_end": "2024-01-04"}
    assert shop.run("model.shop.orders", variables=given).rows_affected == 4


def test_without_t2_a_full_refresh_makes_the_table_anew(shop: Warm) -> None:
    shop.run("model.shop.orders")
    execute(shop, "alter table orders add column old integer")
    execute(shop, "insert into orders values (77, 1, '2023-01-01', 1)")
    assert shop.run("model.shop.orders", full_refresh=True).rows_affected == 12
    assert len(shop.query("select * from orders")[0]) == 3
    assert rows(shop, "select count(*) from orders") == [(12,)]


def test_threads_build_a_new_table_and_the_same_partition_at_once(warm: Warm) -> None:
    ranges = [days(1), days(2), days(3), days(4), days(4), days(4), days(5, 6), days(1)]
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda keys: run(warm, "orders", keys).status, ranges))
    assert statuses == ["success"] * 8
    counts = rows(warm, "select ordered_on::varchar, count(*) from orders group by 1 order by 1")
    assert counts == [(day, 2) for day in days(1, 6)]


def _build_in_child(project: Project, keys: list[str], gate: Any) -> str:
    warm = Warm.of(project)
    gate.wait()
    return str(run(warm, "orders", keys).status)


def _child(project: Project, keys: list[str], gate: Any, answers: Any) -> None:
    try:
        answers.put(_build_in_child(project, keys, gate))
    except NodeFailed as error:
        answers.put(error.message)


def test_processes_build_a_new_table_and_the_same_partition_at_once(postgres_warm: Warm) -> None:
    """The children are forks of a process that has loaded dbt, as the warm worker's are."""
    postgres_warm.close()
    context = multiprocessing.get_context("fork")
    ranges = [days(1), days(2), days(3), days(3), days(3), days(4, 6)]
    gate, answers = context.Barrier(len(ranges)), context.Queue()
    children = [
        context.Process(target=_child, args=(postgres_warm.project, keys, gate, answers)) for keys in ranges
    ]
    for child in children:
        child.start()
    assert [answers.get(timeout=60) for _ in children] == ["success"] * len(ranges)
    for child in children:
        child.join()
    counts = rows(postgres_warm, "select ordered_on::varchar, count(*) from orders group by 1 order by 1")
    assert counts == [(day, 2) for day in days(1, 6)]
