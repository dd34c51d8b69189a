"""What a look at a source finds, on DuckDB and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest
from tests.runtime.projects import NOW

from t2.errors import DbtError
from t2.project.model import Grain, Monitor, Partitioning, Source
from t2.runtime.monitors import look
from t2.runtime.warm import Warm


@pytest.fixture(params=["duckdb", "postgres"])
def shop(request: pytest.FixtureRequest) -> Warm:
    warm: Warm = request.getfixturevalue("warm" if request.param == "duckdb" else "postgres_warm")
    return warm


def execute(warm: Warm, sql: str) -> None:
    warm.query(f"{sql}; {'commit;' if warm.adapter_type == 'postgres' else ''} select 1 as done")


def orders(warm: Warm, **changes: object) -> Source:
    return replace(warm.project.sources["raw/orders"], **changes)


def watched(warm: Warm, zone: str, grain: Grain = Grain.DAY, **monitor: object) -> Source:
    """The orders, cut by the time at which they were loaded."""
    partitioning = Partitioning(grain, datetime(2024, 1, 1), "loaded_at", zone)
    return orders(warm, partitioning=partitioning, loaded_at=None, monitor=Monitor(**monitor))


def test_the_newest_event_time_decides_what_has_landed(shop: Warm) -> None:
    found = look(shop, orders(shop), now=NOW)
    assert list(found) == [f"2024-01-0{day}" for day in range(1, 6)]
    assert found["2024-01-02"] == "2 rows, loaded 2024-01-02T13:00:00"


def test_a_fingerprint_changes_when_rows_do(shop: Warm) -> None:
    before = look(shop, orders(shop), now=NOW)
    execute(shop, "insert into raw.orders values (99, 1, '2024-01-02', '2024-01-09 08:00:00')")
    after = look(shop, orders(shop), now=NOW)
    assert {key for key in after if after[key] != before[key]} == {"2024-01-02"}
    assert after["2024-01-02"] == "3 rows, loaded 2024-01-09T08:00:00"


def test_a_partition_without_rows_lands_empty(shop: Warm) -> None:
    execute(shop, "delete from raw.orders where ordered_on = '2024-01-03'")
    assert look(shop, orders(shop), now=NOW)["2024-01-03"] == "0"


def test_a_look_can_be_bounded(shop: Warm) -> None:
    assert list(look(shop, orders(shop), now=NOW, since=3)) == ["2024-01-04", "2024-01-05"]


def test_the_grace_holds_the_last_partitions_back(shop: Warm) -> None:
    # The newest row is of the 6th, 13:00.
    assert list(look(shop, watched(shop, "UTC", grace_seconds=13 * 3600), now=NOW))[-1] == "2024-01-05"
    assert list(look(shop, watched(shop, "UTC", grace_seconds=13 * 3600 + 1), now=NOW))[-1] == "2024-01-04"


def test_a_partition_whose_window_is_not_over_has_not_landed(shop: Warm) -> None:
    execute(shop, "insert into raw.orders values (99, 1, '2030-01-01', null)")
    now = datetime(2024, 1, 3, tzinfo=timezone.utc)
    assert list(look(shop, orders(shop), now=now)) == ["2024-01-01", "2024-01-02"]


def test_hours_are_hours_of_utc_and_days_of_the_sources_time_zone(shop: Warm) -> None:
    execute(
        shop,
        "alter table raw.orders alter column loaded_at type timestamptz using loaded_at at time zone 'UTC'",
    )
    execute(shop, "update raw.orders set loaded_at = '2024-01-01 04:30:00+00' where id in (2, 3)")
    execute(shop, "update raw.orders set loaded_at = '2024-01-01 05:30:00+00' where id in (4)")
    hours = look(shop, watched(shop, "America/New_York", Grain.HOUR), now=NOW)
    assert {key: rows for key, rows in hours.items() if key < "2024-01-01-23"} == {
        **{f"2024-01-01-{hour:02d}:00": "0" for hour in range(23)},
        "2024-01-01-04:00": "2",
        "2024-01-01-05:00": "1",
    }
    days = look(shop, watched(shop, "America/New_York"), now=NOW)
    # 04:30 UTC is still the 31st in New York, before the begin.
    assert list(days.items())[:2] == [("2024-01-01", "1"), ("2024-01-02", "1")]


def test_a_static_source_has_landed_when_it_has_rows(shop: Warm) -> None:
    rates = shop.project.sources["raw/rates"]
    assert look(shop, rates, now=NOW) == {None: "2"}
    execute(shop, "delete from raw.rates")
    assert look(shop, rates, now=NOW) == {}


def test_a_source_that_does_not_exist_has_nothing_landed(shop: Warm) -> None:
    execute(shop, "drop table raw.orders")
    execute(shop, "drop table raw.rates")
    assert look(shop, orders(shop), now=NOW) == {}
    assert look(shop, shop.project.sources["raw/rates"], now=NOW) == {}


def test_any_other_error_is_told_with_the_databases_message(shop: Warm) -> None:
    with pytest.raises(DbtError, match=r"(?s)raw/orders: .*no_such_column"):
        look(shop, orders(shop, loaded_at="no_such_column"), now=NOW)


def test_an_authors_query_says_what_has_landed(shop: Warm) -> None:
    def asked(sql: str) -> dict:
        return look(shop, orders(shop, monitor=Monitor(sql=sql)), now=NOW)

    days = (
        "select distinct ordered_on as partition from raw.orders where ordered_on < '2024-01-04' order by 1;"
    )
    assert asked(days) == {"2024-01-01": "landed", "2024-01-02": "landed", "2024-01-03": "landed"}
    text = "select '2024-01-03' as partition, 7 as fingerprint union all select '2024-01-02 05:00:00', 8"
    assert asked(text) == {"2024-01-02": "8", "2024-01-03": "7"}
    with pytest.raises(DbtError, match="has no column partition, only day"):
        asked("select 1 as day")


def test_an_authors_query_of_a_static_source_has_landed_with_a_row(shop: Warm) -> None:
    sql = "select 1 as partition, 'v2' as fingerprint from raw.rates where currency = 'EUR'"
    rates = replace(shop.project.sources["raw/rates"], monitor=Monitor(sql=sql))
    assert look(shop, rates, now=NOW) == {None: "v2"}
