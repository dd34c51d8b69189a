"""One project that uses everything, parsed by dbt once."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime, time

import pytest
from click.testing import CliRunner
from tests.project.projects import RICH, write_project

import t2
from t2.cli.parse import command
from t2.project.model import (
    Backfill,
    Column,
    Daily,
    Grain,
    Monitor,
    Partitioning,
    Project,
    Retries,
    Source,
    Table,
    Test,
    Upstream,
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return t2.load_project(write_project(tmp_path_factory.mktemp("rich"), RICH))


def test_tables_come_in_dependency_order_with_ties_by_key(project: Project) -> None:
    assert list(project.tables) == [
        "main/batches",
        "main/names",
        "main/history",
        "main/stg_events",
        "main/daily",
        "main/weekly",
        "main_reports/totals",
    ]
    assert list(project.sources) == ["landing/countries", "landing/events", "landing/rates"]


def test_a_table_is_read_whole(project: Project) -> None:
    found = project.tables["main/daily"]

    assert dataclasses.replace(found, code_version="", tests=()) == Table(
        key="main/daily",
        unique_id="model.shop.daily",
        name="daily",
        schema="main",
        database="warehouse",
        kind="model",
        materialized="partitioned",
        relation='"warehouse"."main"."daily"',
        file="models/marts/daily.sql",
        code_version="",
        partitioning=Partitioning(Grain.DAY, datetime(2024, 1, 2), "day", "Europe/Berlin"),
        upstreams=(
            Upstream("main/stg_events", 6, ("clean",)),
            Upstream("landing/events", 6, ("clean", "stg_events")),
            Upstream("main/daily", 1),
        ),
        columns=(Column("day", "date", "The day"),),
        description="One row a day",
        tags=("core",),
        group="growth",
        owners=("data@example.com",),
        backfill=Backfill(partitions_per_run=30, concurrency=4),
        retries=Retries(attempts=3, wait_seconds=30),
        event_time="day",
    )


def test_a_source_merges_its_own_settings_with_its_tables(project: Project) -> None:
    found = project.sources["landing/events"]

    assert dataclasses.replace(found, tests=()) == Source(
        key="landing/events",
        unique_id="source.shop.raw.events",
        name="events",
        schema="landing",
        database="warehouse",
        source_name="raw",
        relation='"warehouse"."landing"."events"',
        file="models/sources.yml",
        partitioning=Partitioning(Grain.HOUR, datetime(2024, 1, 1), "happened_at"),
        columns=(Column("id", "bigint"),),
        description="What visitors did",
        owners=("raw@example.com", "team:ingest"),
        monitor=Monitor(every_seconds=300, grace_seconds=7200, sql="select 1 as partition"),
        event_time="happened_at",
    )


def test_folder_settings_survive_a_models_own(project: Project) -> None:
    weekly = project.tables["main/weekly"]

    assert (weekly.automation, weekly.owners) == ("manual", ("team:growth team",))
    assert weekly.backfill == Backfill(partitions_per_run=30, concurrency=2)
    assert weekly.retries == Retries(attempts=3, wait_seconds=300)
    assert (weekly.isolation, weekly.pool) == ("table", "heavy")
    assert project.sources["landing/rates"].monitor == Monitor(every_seconds=300)


def test_begin_is_floored_and_hours_are_hours_of_utc(project: Project) -> None:
    assert {key: node.partitioning for key, node in [*project.tables.items(), *project.sources.items()]} == {
        "main/batches": Partitioning(Grain.HOUR, datetime(2024, 1, 1), "happened_at"),
        "main/names": None,
        "main/history": None,
        "main/stg_events": None,
        "main/daily": Partitioning(Grain.DAY, datetime(2024, 1, 2), "day", "Europe/Berlin"),
        "main/weekly": Partitioning(Grain.WEEK, datetime(2024, 1, 1), "day", "Europe/Berlin"),
        "main_reports/totals": None,
        "landing/countries": None,
        "landing/events": Partitioning(Grain.HOUR, datetime(2024, 1, 1), "happened_at"),
        "landing/rates": Partitioning(Grain.DAY, datetime(2024, 1, 1), "day", "Europe/Berlin"),
    }


def test_a_view_is_an_upstream_and_is_looked_through(project: Project) -> None:
    assert project.tables["main/stg_events"].upstreams == (Upstream("landing/events"),)
    assert project.tables["main/weekly"].upstreams == (
        Upstream("landing/countries"),
        Upstream("main/daily", 1),
        Upstream("main/names"),
    )
    assert project.tables["main_reports/totals"].upstreams == (
        Upstream("main/weekly"),
        Upstream("main/stg_events"),
        Upstream("landing/events", 0, ("stg_events",)),
    )


def test_a_group_without_an_email_is_a_team(project: Project) -> None:
    total = project.tables["main_reports/totals"]

    assert (total.name, total.group, total.owners) == ("total", "finance", ("team:finance",))


def test_tests_belong_to_tables_with_their_scope(project: Project) -> None:
    def seen(test: Test) -> tuple[str, str, str, str, bool, bool]:
        return (test.key, test.name, test.kind, test.severity, test.per_partition, test.row_wise)

    daily, source = "main/daily", "landing/events"
    names_code = "source_relationships_static_countries_code__code__ref_names_"
    assert {seen(test) for node in project.nodes() for test in node.tests} == {
        (daily, "accepted_values_daily_day__1", "accepted_values", "warn", False, True),
        (daily, "day_is_there_156f2d0b", "not_null", "error", True, True),
        (daily, "its_window", "singular", "error", True, False),
        (daily, "of_ephemeral", "singular", "error", False, False),
        (daily, "small_daily_3", "small", "error", True, False),
        (daily, "unique_daily_day", "unique", "error", True, True),
        (source, "of_source", "singular", "warn", False, False),
        (source, "source_not_null_raw_events_id", "not_null", "error", True, True),
        # The project replaces what dbt's test calls, so it may look at more than rows.
        ("landing/countries", names_code, "relationships", "error", False, False),
        ("main_reports/totals", "whole_table", "singular", "error", False, False),
    }


def test_tests_say_whether_they_are_screened_and_compare_partitions(project: Project) -> None:
    tests = [test for node in project.nodes() for test in node.tests]
    # A meta.t2 of a test's own replaces that of dbt_project.yml.
    assert sorted(test.name for test in tests if test.screen) == [
        "accepted_values_daily_day__1",
        "its_window",
        "small_daily_3",
        "source_not_null_raw_events_id",
        "unique_daily_day",
    ]
    assert [(test.name, test.compared_by) for test in tests if test.compared_by] == [
        ("unique_daily_day", "day")
    ]


def test_tests_say_what_they_hold_back_and_when_they_run(project: Project) -> None:
    tests = {test.name: test for node in project.nodes() for test in node.tests}
    assert {name: test.blocks for name, test in tests.items() if test.blocks is not None} == {
        "small_daily_3": ("main_reports/totals", "main/daily"),
        "its_window": (),
        # A view stands for the tables that read it, an ephemeral model in between too.
        "source_not_null_raw_events_id": ("main/daily", "main_reports/totals"),
    }
    assert [(test.name, test.daily) for test in tests.values() if test.daily] == [
        ("small_daily_3", Daily(time(7, 30), "Europe/Berlin"))
    ]
    held = {name: tests[name].held for name in ("accepted_values_daily_day__1", "its_window", "of_source")}
    assert held == dict.fromkeys(held, ())
    assert (tests["unique_daily_day"].held, tests["unique_daily_day"].blocking) == (None, True)


def test_parse_prints_every_table_and_counts(project: Project) -> None:
    ran = CliRunner().invoke(command, ["--project-dir", project.root])

    lines = [line.split("  ") for line in ran.stdout.splitlines()]
    rows = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert rows[0] == ["TABLE", "MATERIALIZED", "PARTITIONS", "READS", "TESTS", "OWNER"]
    assert rows[8] == [
        "main/daily",
        "partitioned",
        "day from 2024-01-02 Europe/Berlin",
        "main/daily (lookback 1), main/stg_events (lookback 6), landing/events (lookback 6)",
        "6",
        "data@example.com",
    ]
    assert ran.stdout.splitlines()[-1].startswith(
        "7 tables (3 partitioned), 3 sources, 10 tests; dbt 1.11.16 on duckdb, target dev; "
    )


def test_parse_prints_everything_as_json(project: Project) -> None:
    ran = CliRunner().invoke(command, ["--project-dir", project.root, "--format", "json"])

    document = json.loads(ran.stdout)
    assert [table["key"] for table in document["tables"]] == list(project.tables)
    assert document["tables"][4]["partitioning"] == {
        "grain": "day",
        "begin": "2024-01-02T00:00:00",
        "event_time": "day",
        "timezone": "Europe/Berlin",
        "end": None,
        "open": False,
    }
