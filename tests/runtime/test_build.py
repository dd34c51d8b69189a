"""Building and testing on DuckDB, one table of each kind."""

from __future__ import annotations

import pytest
from tests.runtime.projects import NOW, days

from t2.errors import ConfigError, NodeFailed
from t2.runtime.build import Built, Checked, build, check
from t2.runtime.warm import Warm


def run(warm: Warm, key: str, keys: list[str | None] | None = None, tests=()) -> list:
    return list(build(warm, warm.project.tables[f"main/{key}"], keys, tests=tests, now=NOW))


def rows(warm: Warm, sql: str) -> list[tuple]:
    return [tuple(row.values()) for row in warm.query(sql)]


def shape(events: list[Built | Checked]) -> list[tuple]:
    """Return what was told: one row a statement, one row a test and partition."""
    found: list[tuple] = []
    for event in events:
        if isinstance(event, Built):
            found.append(("built", event.keys))
        else:
            found += [(event.test.kind, key, event.result.status) for key in event.keys]
    return found


def test_a_range_of_partitions_is_one_statement(warm: Warm) -> None:
    (built,) = run(warm, "orders", days(2, 4))
    assert (built.keys, built.result.status, built.result.rows_affected) == (tuple(days(2, 4)), "success", 6)
    assert rows(warm, "select min(id), max(id), count(*) from orders") == [(4, 9, 6)]


def test_building_a_partition_again_replaces_it_and_nothing_else(warm: Warm) -> None:
    run(warm, "orders", days(1, 3))
    warm.query("update raw.orders set amount = 3")
    run(warm, "orders", days(2))
    assert rows(warm, "select ordered_on::varchar, sum(amount) from orders group by 1 order by 1") == [
        ("2024-01-01", 3),
        ("2024-01-02", 6),
        ("2024-01-03", 3),
    ]


def test_a_partition_that_lost_its_rows_is_emptied(warm: Warm) -> None:
    run(warm, "orders", days(1, 2))
    warm.query("delete from raw.orders where ordered_on = '2024-01-02'")
    run(warm, "orders", days(2))
    assert rows(warm, "select distinct ordered_on::varchar from orders") == [("2024-01-01",)]


def test_a_lookback_widens_the_window_of_the_upstream_only(warm: Warm) -> None:
    run(warm, "orders", days(1, 6))
    run(warm, "rolling", days(5))
    assert rows(warm, "select distinct ordered_on::varchar, seen from rolling") == [("2024-01-05", 6)]


def test_a_table_that_reads_itself_is_built_in_order_one_partition_at_a_time(warm: Warm) -> None:
    run(warm, "orders", days(1, 3))
    events = run(warm, "balance", days(1, 3))
    assert shape(events) == [
        ("built", ("2024-01-01",)),
        ("built", ("2024-01-02",)),
        ("built", ("2024-01-03",)),
    ]
    assert rows(warm, "select total from balance order by ordered_on") == [(2,), (4,), (6,)]


def test_dbts_microbatch_is_built_batch_by_batch(warm: Warm) -> None:
    run(warm, "orders", days(1, 6))
    events = run(warm, "micro", days(2, 3))
    run(warm, "micro", days(3))
    assert shape(events) == [("built", ("2024-01-02",)), ("built", ("2024-01-03",))]
    assert rows(warm, "select min(id), max(id), count(*) from micro") == [(4, 7, 4)]


def test_windows_pass_through_views_and_ephemeral_models(warm: Warm) -> None:
    run(warm, "orders", days(1, 6))
    run(warm, "recent")
    run(warm, "through", days(3))
    run(warm, "through", days(5))
    assert rows(warm, "select ordered_on::varchar, seen, doubled from through order by 1") == [
        ("2024-01-03", 4, 12),
        ("2024-01-05", 4, 12),
    ]


def test_a_month_reads_its_days(warm: Warm) -> None:
    warm.query("insert into raw.orders values (99, 1, '2024-02-01', now()::timestamp)")
    run(warm, "orders", [*days(1, 31), "2024-02-01"])
    run(warm, "monthly", ["2024-01-01"])
    assert rows(warm, "select month::varchar, orders from monthly") == [("2024-01-01", 12)]


def test_tables_seeds_and_snapshots_have_no_keys(warm: Warm) -> None:
    run(warm, "orders", days(1))
    events = [run(warm, key)[0] for key in ("whole", "countries")]
    snapshot = warm.project.tables["main_history/rates_history"]
    events += build(warm, snapshot, [None], tests=(), now=NOW)
    assert [(event.keys, event.result.status) for event in events] == [((None,), "success")] * 3
    assert rows(warm, "select count(*) from whole") == [(4,)]
    assert rows(warm, "select count(*) from main_history.rates_history") == [(2,)]


def test_a_failing_model_raises_dbts_own_message(warm: Warm) -> None:
    with pytest.raises(NodeFailed, match="no_such_table") as caught:
        run(warm, "broken")
    assert caught.value.message.startswith("Runtime Error in model broken (models/broken.sql)")
    assert caught.value.result.compiled_code == "select * from raw.no_such_table"


def test_what_was_built_before_a_failure_was_told(warm: Warm) -> None:
    run(warm, "orders", days(1, 2))
    events = build(warm, warm.project.tables["main/balance"], days(1, 3), tests=(), now=NOW)
    assert next(events).keys == ("2024-01-01",)
    warm.query("alter table orders rename to gone")
    with pytest.raises(NodeFailed) as caught:
        next(events)
    assert caught.value.where == "main/balance 2024-01-02"


def test_a_partition_is_refused_until_its_window_is_over(warm: Warm) -> None:
    with pytest.raises(ConfigError, match="main/orders 2024-02-10: the day is not over yet"):
        run(warm, "orders", ["2024-02-10"])


def find_tests(warm: Warm, key: str, *kinds: str) -> list:
    table = warm.project.tables[f"main/{key}"]
    return sorted((test for test in table.tests if test.kind in kinds), key=lambda test: test.name)


def test_a_row_wise_test_that_finds_nothing_proves_all_partitions_at_once(warm: Warm) -> None:
    (not_null,) = find_tests(warm, "orders", "not_null")
    events = run(warm, "orders", days(1, 3), [not_null])
    assert shape(events)[1:] == [("not_null", day, "pass") for day in days(1, 3)]
    assert len(events) == 2


def test_a_row_wise_test_that_finds_something_is_asked_again_for_each_partition(warm: Warm) -> None:
    warm.query("update raw.orders set id = null where id = 5")
    (not_null,) = find_tests(warm, "orders", "not_null")
    events = run(warm, "orders", days(1, 3), [not_null])
    assert shape(events)[1:] == [
        ("not_null", "2024-01-01", "pass"),
        ("not_null", "2024-01-02", "fail"),
        ("not_null", "2024-01-03", "pass"),
    ]
    assert (events[2].passed, events[2].result.failures) == (False, 1)
    assert events[2].result.message == "Got 1 result, configured to fail if != 0"


def test_any_other_test_of_partitions_is_asked_for_each(warm: Warm) -> None:
    per_partition, whole = sorted(
        find_tests(warm, "orders", "at_most"), key=lambda test: not test.per_partition
    )
    events = run(warm, "orders", days(1, 2), [per_partition, whole])
    assert shape(events)[1:] == [("at_most", day, "pass") for day in (*days(1, 2), *days(1, 2))]
    assert [event.keys for event in events[1:]] == [("2024-01-01",), ("2024-01-02",), tuple(days(1, 2))]


def test_a_warning_is_no_pass_and_no_failure(warm: Warm) -> None:
    warm.query("update raw.orders set amount = 4 where id = 2")
    accepted = find_tests(warm, "orders", "accepted_values")
    events = run(warm, "orders", days(1), accepted)
    assert (events[1].passed, events[1].result.status) == (False, "warn")


def test_a_singular_test_that_calls_window_sees_its_partition(warm: Warm) -> None:
    warm.query("update raw.orders set amount = -1 where id = 2")
    singular = find_tests(warm, "orders", "singular")
    events = run(warm, "orders", days(1, 2), singular)
    assert shape(events)[1:] == [("singular", "2024-01-01", "fail"), ("singular", "2024-01-02", "pass")]


def test_a_test_whose_sql_fails_did_not_pass(warm: Warm) -> None:
    (not_null,) = find_tests(warm, "orders", "not_null")
    (event,) = check(warm, warm.project.tables["main/orders"], days(1), tests=[not_null], now=NOW)
    assert (event.passed, event.result.status) == (False, "error")
    assert "orders" in event.result.message


def test_sources_are_checked_for_each_partition(warm: Warm) -> None:
    source = warm.project.sources["raw/orders"]
    events = list(check(warm, source, days(1, 2), tests=source.tests, now=NOW))
    assert shape(events) == [("not_null", "2024-01-01", "pass"), ("not_null", "2024-01-02", "pass")]


def test_what_dbt_logs_is_passed_on(warm: Warm) -> None:
    lines: list[tuple[str, str]] = []
    table = warm.project.tables["main/orders"]
    list(build(warm, table, days(1), tests=(), now=NOW, on_log=lambda *line: lines.append(line)))
    assert [level for level, _ in lines] == ["info", "info"]
    assert "START sql partitioned model main.orders" in lines[0][1]
