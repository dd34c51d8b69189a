"""The windows that Python hands to dbt are those that the dbt package computes by itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.runtime.projects import NOW, days

from t2.planning.grid import Grid
from t2.project.model import Column, Grain, Partitioning, Project, Table, Upstream
from t2.runtime.warm import Warm
from t2.runtime.windows import partition_variables, predicate, variables

ZONES = ["UTC", "America/New_York", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kathmandu", "Pacific/Apia"]
LATER = datetime(2035, 1, 1, tzinfo=timezone.utc)


def table(name: str, partitioning: Partitioning | None, *upstreams: Upstream) -> Table:
    return Table(
        key=f"main/{name}",
        unique_id=f"model.shop.{name}",
        name=name,
        schema="main",
        database=None,
        kind="model",
        materialized="partitioned",
        relation=name,
        file="",
        code_version="",
        partitioning=partitioning,
        upstreams=upstreams,
    )


def project(*tables: Table) -> Project:
    return Project("shop", "", "", "", "duckdb", "", "", "", {table.key: table for table in tables}, {})


def cut(grain: Grain, zone: str = "UTC", begin: datetime = datetime(2011, 1, 1)) -> Partitioning:
    return Partitioning(grain, begin, "at", zone)


def windows(reader: Table, upstream: Table, first: str, last: str) -> dict:
    given = variables(project(reader, upstream), reader, first, last, now=LATER)
    return given["t2"]["windows"]


@pytest.fixture
def macros(duckdb_project: Project) -> Warm:
    return Warm.of(duckdb_project)


@given(
    grains=st.tuples(st.sampled_from(Grain), st.sampled_from(Grain)),
    zones=st.tuples(st.sampled_from(ZONES), st.sampled_from(ZONES)),
    lookback=st.integers(0, 40),
    back=st.sampled_from([0, 0, 1800, 7200, 3 * 86400]),
    shift=st.sampled_from([0, 0, 3600, -5400]),
    day=st.integers(0, 6000),
    length=st.integers(1, 5),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_macro_and_python_agree_on_every_window(
    macros: Warm, grains: tuple, zones: tuple, lookback: int, back: int, shift: int, day: int, length: int
) -> None:
    edge = Upstream("main/upstream", lookback, back_seconds=back, shift_seconds=shift)
    reader = table("reader", cut(grains[0], zones[0]), edge)
    upstream = table("upstream", cut(grains[1], zones[1]))
    grid = Grid.of(reader.partitioning)
    first = grid.at(datetime.fromtimestamp(1293840000 + 86400 * (day + 400), timezone.utc))
    given = variables(
        project(reader, upstream), reader, grid.key(first), grid.key(first + length - 1), now=LATER
    )
    own, told = given["t2"], given["t2"]["windows"]["model.shop.upstream"]

    found = macros.call(
        "window_back",
        own={
            "start": datetime.fromisoformat(own["start"]),
            "end": datetime.fromisoformat(own["end"]),
            "grain": own["grain"],
            "zone": own["timezone"],
        },
        cut={"grain": grains[1].value, "zone": told["timezone"]},
        lookback=lookback,
        back=back,
        shift=shift,
    )
    assert {key: str(found[key]) for key in ("start", "end")} == {key: told[key] for key in ("start", "end")}


def test_an_hour_reads_the_whole_day_that_it_lies_in() -> None:
    reader = table("reader", cut(Grain.HOUR), Upstream("main/upstream"))
    upstream = table("upstream", cut(Grain.DAY, "America/New_York"))
    assert windows(reader, upstream, "2024-01-02-03:00", "2024-01-02-03:00") == {
        "model.shop.upstream": {
            "start": "2024-01-01 00:00:00",
            "end": "2024-01-02 00:00:00",
            "timezone": "America/New_York",
        }
    }


def test_a_day_reads_the_hours_of_its_own_time_zone() -> None:
    reader = table("reader", cut(Grain.DAY, "Europe/Berlin"), Upstream("main/upstream", 1))
    upstream = table("upstream", cut(Grain.HOUR))
    # The clocks go forward on the 31st: with the day before it these are 47 hours.
    assert windows(reader, upstream, "2024-03-31", "2024-03-31") == {
        "model.shop.upstream": {
            "start": "2024-03-29 23:00:00",
            "end": "2024-03-31 22:00:00",
            "timezone": "UTC",
        }
    }


def test_a_self_reference_ends_where_the_range_begins() -> None:
    reader = table("reader", cut(Grain.DAY), Upstream("main/reader", 2))
    assert windows(reader, reader, "2024-01-10", "2024-01-12") == {
        "model.shop.reader": {"start": "2024-01-08 00:00:00", "end": "2024-01-10 00:00:00", "timezone": "UTC"}
    }


def test_of_a_view_only_how_far_back_is_told_and_of_a_whole_table_nothing() -> None:
    view = replace(table("view", None), materialized="view", event_time="at")
    whole = replace(table("whole", None), materialized="table", event_time="at")
    moved = {"lookback": 3, "back": 0, "shift": 0}
    for upstream, told in ((view, {"model.shop.view": moved}), (whole, {})):
        reader = table("reader", cut(Grain.DAY), Upstream(upstream.key, 3))
        assert windows(reader, upstream, "2024-01-10", "2024-01-10") == told


def test_an_unpartitioned_table_reads_everything() -> None:
    reader = table("reader", None, Upstream("main/upstream"))
    assert variables(project(reader), reader, None, None, now=LATER) == {
        "t2": {"start": None, "end": None, "windows": {}}
    }


def test_a_tests_window_is_the_partition_itself() -> None:
    tested = table("tested", cut(Grain.MONTH))
    assert partition_variables(tested, "2024-02-01") == {
        "t2": {
            "start": "2024-02-01 00:00:00",
            "end": "2024-03-01 00:00:00",
            "timezone": "UTC",
            "grain": "month",
            "windows": {
                "model.shop.tested": {
                    "start": "2024-02-01 00:00:00",
                    "end": "2024-03-01 00:00:00",
                    "timezone": "UTC",
                }
            },
        }
    }


def test_a_column_of_instants_is_compared_with_instants() -> None:
    plain = table("tested", cut(Grain.DAY, "Europe/Berlin"))
    aware = replace(plain, columns=(Column("at", "timestamp with time zone"),))
    assert predicate(plain, "2024-01-01", "2024-01-02") == (
        "at >= cast('2024-01-01 00:00:00' as timestamp) and at < cast('2024-01-03 00:00:00' as timestamp)"
    )
    assert predicate(aware, "2024-01-01", "2024-01-02") == (
        "at >= cast('2023-12-31 23:00:00+00' as timestamptz) "
        "and at < cast('2024-01-02 23:00:00+00' as timestamptz)"
    )


@pytest.mark.parametrize(
    ("type_", "zone", "low", "high"),
    [
        (None, "UTC", "'2024-01-01'", "'2024-01-03'"),
        ("DATE", "Europe/Berlin", "date '2024-01-01'", "date '2024-01-03'"),
        ("datetime", "Europe/Berlin", "datetime '2024-01-01 00:00:00'", "datetime '2024-01-03 00:00:00'"),
        (
            "timestamp",
            "Europe/Berlin",
            "timestamp '2023-12-31 23:00:00+00'",
            "timestamp '2024-01-02 23:00:00+00'",
        ),
    ],
)
def test_bigquery_compares_a_column_with_its_own_type_only(
    type_: str | None, zone: str, low: str, high: str
) -> None:
    found = replace(table("tested", cut(Grain.DAY, zone)), columns=(Column("at", type_),))
    assert predicate(found, "2024-01-01", "2024-01-02", adapter="bigquery") == f"at >= {low} and at < {high}"


def test_plain_variables_give_the_same_sql(warm: Warm) -> None:
    """What `dbt run --vars` does; only an ephemeral model is not filtered there."""
    plain = {"t2_start": days(3)[0], "t2_end": days(5)[0]}
    for name in ("orders", "rolling", "monthly", "moved", "newest", "everything"):
        found = warm.project.tables[f"main/{name}"]
        keys = (days(3)[0], days(4)[0])
        if name == "monthly":
            keys = ("2024-01-01", "2024-01-01")
        told = variables(warm.project, found, *keys, now=NOW)
        results = [warm.run(found.unique_id, variables=given) for given in (told, plain)]
        assert results[0].compiled_code == results[1].compiled_code
        assert "2024-01-0" in results[0].compiled_code


def test_a_batch_of_dbts_own_microbatch_is_a_window(warm: Warm) -> None:
    """Without T2's variable: the macro takes the batch, and dbt's own filter is not applied on top."""
    utc = timezone.utc
    batch = (datetime(2024, 1, 2, tzinfo=utc), datetime(2024, 1, 3, tzinfo=utc))
    warm.run("model.shop.orders")
    result = warm.run("model.shop.micro_windowed", batch=batch)
    assert result.status == "success", result.message
    assert result.compiled_code == (
        'select id, ordered_on from (select * from "shop"."main"."orders" where '
        "ordered_on >= cast('2024-01-01 00:00:00' as timestamp) "
        "and ordered_on < cast('2024-01-03 00:00:00' as timestamp))"
        "\nwhere (ordered_on >= cast('2024-01-02 00:00:00' as timestamp) and ordered_on < "
        "cast('2024-01-03 00:00:00' as timestamp))"
    )


def test_a_new_table_that_reads_itself_needs_its_columns_types(warm: Warm) -> None:
    warm.run("model.shop.orders")
    result = warm.run("model.shop.untyped")
    assert result.status == "error"
    assert (
        "untyped reads itself with t2.window('untyped') and does not exist yet: "
        "its YAML must give the data_type of the columns total"
    ) in result.message
