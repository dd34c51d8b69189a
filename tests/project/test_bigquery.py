"""What BigQuery cannot do is found before anything runs."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from tests.project.manifests import manifest, model

from t2.errors import ProjectError
from t2.project.manifest import read_manifest
from t2.project.model import Project

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
COPY: dict[str, Any] = {"bigquery": {"write": "copy"}}
MERGE: dict[str, Any] = {"bigquery": {"write": "merge"}}
MONTHS = {"field": "day", "data_type": "date", "granularity": "month"}


def read(
    adapter: str = "bigquery", type_: str | None = None, root: Path = Path("nowhere"), **config: Any
) -> Project:
    node = {**model("orders", **config), "columns": {"day": {"name": "day", "data_type": type_}}}
    found = manifest(node)
    found["metadata"]["adapter_type"] = adapter
    return read_manifest(found, root=root, now=NOW)


def problems(**config: Any) -> list[tuple[str, str | None]]:
    with pytest.raises(ProjectError) as raised:
        read(**config)
    return [(problem.message, problem.hint) for problem in raised.value.problems]


@pytest.mark.parametrize(
    ("config", "builds_at_once"),
    [
        ({}, 4),
        ({"t2": MERGE}, 1),
        ({"t2": {**MERGE, "backfill": {"concurrency": 3}}}, 3),
        ({"incremental_strategy": "append"}, 4),
        ({"incremental_strategy": "merge", "unique_key": "id"}, 1),
        ({"t2": {"batch_size": "week"}}, 1),  # seven partitions of BigQuery, which are not replaced at once
        ({"t2": {"batch_size": "week", **COPY}}, 4),
        ({"partition_by": MONTHS}, 1),
        ({"partition_by": {"field": "DAY", "data_type": "date"}}, 4),
        (
            {
                "partition_by": {
                    "field": "id",
                    "data_type": "int64",
                    "range": {"start": 0, "end": 9, "interval": 1},
                }
            },
            1,
        ),
        (
            {"type_": "timestamp", "t2": {"timezone": "Europe/Berlin"}},
            1,
        ),  # days of UTC are not those of Berlin
        ({"type_": "date", "t2": {"timezone": "Europe/Berlin"}}, 4),
        ({"adapter": "duckdb", "t2": MERGE}, 4),
    ],
)
def test_tables_that_are_copied_have_several_builds_at_once(config: Any, builds_at_once: int) -> None:
    assert read(**config).tables["main/orders"].backfill.concurrency == builds_at_once


def test_a_way_of_writing_is_one_of_two_words() -> None:
    assert problems(t2={"bigquery": {"write": "coyp"}}) == [
        ("meta.t2.bigquery.write is 'coyp'; expected copy or merge", "did you mean copy?")
    ]


def test_what_cannot_be_copied_is_reported() -> None:
    assert problems(t2=COPY, incremental_strategy="merge", unique_key="id") == [
        ("meta.t2.bigquery.write is 'copy'; a merge by unique_key is a statement", "remove it")
    ]
    message = (
        "meta.t2.bigquery.write is 'copy', but BigQuery's partitions of this table do not make up those by "
        "day of day ({})"
    )
    hint = "change partition_by, or remove bigquery.write: the table is then written by merge"
    assert problems(t2=COPY, partition_by=MONTHS) == [(message.format("UTC"), hint)]
    berlin = {**COPY, "timezone": "Europe/Berlin"}
    assert problems(t2=berlin, type_="timestamp") == [(message.format("Europe/Berlin"), hint)]


def test_a_partitioning_that_is_none_is_reported() -> None:
    assert problems(partition_by="day") == [
        (
            "partition_by is 'day'; expected a mapping",
            "partition_by: {field: day, data_type: date, granularity: day}",
        )
    ]
    assert problems(partition_by={"field": "day", "granularity": "week"}) == [
        (
            "partition_by.granularity is 'week'; it can be hour, day, month, year",
            "weeks are made up of days",
        )
    ]
    assert problems(partition_by={"field": "day", "time_ingestion_partitioning": True}) == [
        (
            "partition_by.time_ingestion_partitioning cuts by the time of writing, not by event_time",
            "remove it",
        )
    ]


def test_a_clock_needs_to_know_whether_times_are_instants() -> None:
    assert problems(t2={"timezone": "Europe/Berlin"}) == [
        (
            "BigQuery needs the data_type of day, the event_time, for a timezone",
            "document the column with data_type: date, datetime or timestamp",
        )
    ]
    assert problems(batch_size="hour", type_="date") == [
        ("day, the event_time, is a date: it cannot be cut by hour", "use a timestamp or a datetime")
    ]


@pytest.mark.parametrize(
    ("config", "most"),
    [
        ({}, 4000),
        ({"t2": {"batch_size": "week"}}, 571),
        ({"batch_size": "year", "partition_by": MONTHS}, 333),
    ],
)
def test_a_run_builds_no_more_partitions_than_one_job_may_change(config: Any, most: int) -> None:
    def asked(count: int) -> dict[str, Any]:
        return {**config, "t2": {**config.get("t2", {}), "backfill": {"partitions_per_run": count}}}

    read(**asked(most))
    assert problems(**asked(most + 1)) == [
        (
            "BigQuery changes at most 4000 of its partitions in one job",
            f"meta.t2.backfill.partitions_per_run can be {most} here",
        )
    ]


def test_no_more_statements_wait_than_bigquery_lets_wait() -> None:
    assert problems(t2={**MERGE, "backfill": {"concurrency": 21}}) == [
        (
            "BigQuery refuses more than 20 outstanding statements that change one table",
            "meta.t2.backfill.concurrency can be 20; more than 1 gains little here",
        )
    ]
    assert read(t2={"backfill": {"concurrency": 21}}).tables["main/orders"].backfill.concurrency == 21


def test_what_a_folder_says_and_dbt_cannot_see_is_reported(tmp_path: Path) -> None:
    """dbt replaces meta.t2 as a whole, T2 merges it: the macros would not know the way of writing."""
    folder = "name: shop\nmodels: {shop: {+meta: {t2: {bigquery: {write: merge}}}}}\n"
    (tmp_path / "dbt_project.yml").write_text(folder)
    assert [message for message, _ in problems(root=tmp_path, t2={"owner": "team"})] == [
        "meta.t2.bigquery of a folder is hidden from dbt by the model's own meta.t2"
    ]
