"""The example without T2: plain dbt builds it on three days of data, and every test passes."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

REPOSITORY = Path(__file__).parents[2]
PROJECT = REPOSITORY / "examples/nycflights"
BUILD = """
import sys
from dbt.cli.main import dbtRunner
sys.exit(not dbtRunner().invoke(sys.argv[1:]).success)
"""

EVERYTHING = ("--full-refresh", "--event-time-start=2013-01-01", "--event-time-end=2013-01-04")

Query = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("example") / "nycflights"
    ignore = shutil.ignore_patterns("target", "logs", "dbt_packages", ".t2", "*.duckdb*", "__pycache__")
    shutil.copytree(PROJECT, project, ignore=ignore)
    shutil.copytree(REPOSITORY / "src/t2/dbt", project / "dbt_packages/t2")
    python(project, str(project / "feed.py"), "run", "--days=3", "--burst-days=3", "--pace=0")
    python(project, "-c", BUILD, "build", *EVERYTHING)
    return project


def python(project: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        env={**os.environ, "NYCFLIGHTS_DATABASE": str(project / "nycflights.duckdb")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def query(built: Path) -> Query:
    connection = duckdb.connect(str(built / "nycflights.duckdb"), read_only=True)
    return lambda sql: connection.execute(sql).fetchall()


def artifact(built: Path, name: str) -> dict[str, Any]:
    return json.loads((built / f"target/{name}.json").read_text())


def test_every_table_is_built_and_every_test_passes_but_one_that_warns(built: Path):
    results = artifact(built, "run_results")["results"]
    others = [result for result in results if result["status"] not in ("pass", "success")]

    assert [(result["status"], result["unique_id"].split(".")[2]) for result in others] == [
        ("warn", "relationships_fct_planes_active_daily_tail_number__tail_number__ref_dim_planes_")
    ]
    assert len([result for result in results if result["status"] == "success"]) == 26
    assert len(results) > 200


def test_the_columns_are_those_that_the_properties_declare(built: Path, query: Query):
    manifest = artifact(built, "manifest")
    nodes = [
        node
        for node in (*manifest["nodes"].values(), *manifest["sources"].values())
        if node["config"].get("materialized") not in ("ephemeral", "test")
    ]
    declared = {
        f"{node['schema']}.{node['name']}": [
            (name, column["data_type"]) for name, column in node["columns"].items()
        ]
        for node in nodes
    }

    found = {
        table: [(name, kind.lower()) for name, kind, *_ in query(f"describe {table}")] for table in declared
    }

    assert declared == found


def test_every_table_has_an_owner_and_a_description(built: Path):
    models = [
        node for node in artifact(built, "manifest")["nodes"].values() if node["resource_type"] != "test"
    ]

    assert [node["name"] for node in models if not (node.get("group") and node["description"])] == []


def test_flights_stay_the_same_in_number_from_the_source_to_the_month(query: Query):
    tables = {
        "raw.flights": "count(*)",
        "analytics.stg_flights": "count(*)",
        "analytics.int_flights_weather": "count(*)",
        "analytics.int_departures_hourly": "sum(flights)",
        "analytics.fct_flights": "count(*)",
        "analytics.fct_flights_daily": "sum(flights)",
        "analytics.fct_routes_daily": "sum(flights)",
        "analytics.fct_origin_days": "sum(flights)",
        "analytics.fct_carriers_weekly": "sum(flights)",
        "analytics.fct_routes_monthly": "sum(flights)",
    }

    assert {table: query(f"select {total} from {table}")[0][0] for table, total in tables.items()} == (
        dict.fromkeys(tables, 2699)
    )
    assert query("select flight_date, count(*) from analytics.fct_flights group by 1 order by 1") == [
        (date(2013, 1, 1), 842),
        (date(2013, 1, 2), 943),
        (date(2013, 1, 3), 914),
    ]


def test_a_rolling_day_adds_up_the_days_up_to_it(query: Query):
    rolling = query(
        "select flight_date, flights_7d from analytics.fct_carriers_rolling_7d where carrier = 'UA'"
    )
    daily = (
        "select flight_date, sum(flights) from analytics.fct_flights_daily where carrier = 'UA' group by all"
    )
    by_day = dict(query(daily))

    assert dict(rolling) == {
        day: sum(flights for other, flights in by_day.items() if other <= day) for day in by_day
    }


def test_the_growth_accounting_follows_each_plane_from_day_to_day(query: Query):
    """Regression: what a table reads of itself was empty in every batch of a full refresh."""
    flown: dict[date, set[str]] = {}
    for day, plane in query("select flight_date, tail_number from analytics.fct_planes_active_daily"):
        flown.setdefault(day, set()).add(plane)
    expected, yesterday, seen = [], set[str](), set[str]()
    for day, today in sorted(flown.items()):
        counts = (
            len(today - seen),
            len(today & yesterday),
            len((today & seen) - yesterday),
            len(seen - today),
        )
        expected.append((day, *counts, len(seen | today)))
        yesterday, seen = today, seen | today

    assert query("from analytics.fct_fleet_daily order by 1") == expected


def test_a_second_full_refresh_does_not_read_the_rows_that_it_replaces(built: Path, tmp_path: Path):
    project = shutil.copytree(built, tmp_path / "nycflights")
    table = "dim_planes_growth_accounting"
    # A first day that read these would take every plane for a known one.
    with duckdb.connect(str(project / "nycflights.duckdb")) as connection:
        rows = connection.execute(f"from analytics.{table} order by all").fetchall()
        connection.execute(
            f"insert into analytics.{table} select '2012-12-31', tail_number, status, first_seen_on - 9,"
            f" last_seen_on, days_active from analytics.{table} where flight_date = '2013-01-01'"
        )

    python(project, "-c", BUILD, "run", "--select", table, *EVERYTHING)

    with duckdb.connect(str(project / "nycflights.duckdb"), read_only=True) as connection:
        assert connection.execute(f"from analytics.{table} order by all").fetchall() == rows
