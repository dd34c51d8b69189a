"""What the ledger takes for granted of Dagster's event log, asked of a real Dagster instance."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluation
from dagster._core.events import DagsterEvent
from dagster._core.instance.ref import InstanceRef
from tests.ledger.event_log import content, row_of

from t2.definitions._dagster.events import silent_output
from t2.ledger.events import (
    KINDS,
    CheckPlanned,
    Evaluated,
    Event,
    Failed,
    Materialized,
    Planned,
    RunChanged,
    Skipped,
    parse,
)
from t2.ledger.ledger import Ledger
from t2.ledger.storage import locate

DAYS = dg.DailyPartitionsDefinition("2024-01-01")
DAY = dg.AssetKey(["s", "day"])
FIRST, SECOND, THIRD = "2024-01-01", "2024-01-02", "2024-01-03"
TABLE = "s/day"


@dg.asset(
    key=DAY,
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[dg.AssetCheckSpec("c", asset=DAY, blocking=True)],
)
def day(context: dg.AssetExecutionContext) -> Iterator[Any]:
    for key in context.partition_keys:
        yield dg.AssetMaterialization(
            DAY, partition=key, metadata={"t2/as_of": 7}, tags={"dagster/code_version": "v9"}
        )
        yield AssetCheckEvaluation(
            asset_key=DAY,
            check_name="c",
            passed=key != SECOND,
            partition=key,
            blocking=True,
            description="two rows",
            metadata={"dagster_dbt/failed_row_count": 2, "t2/test": "test.p.c", "t2/as_of": 5},
        )
    yield dg.AssetCheckResult(check_name="c", passed=True)
    yield silent_output("result")


@dg.asset(key=["s", "failing"], partitions_def=DAYS)
def failing(context: dg.AssetExecutionContext) -> Iterator[Any]:
    yield dg.AssetObservation(
        ["s", "failing"],
        partition=context.partition_key,
        tags={"t2/failed": "true"},
        metadata={"t2/error": "no such\x00 column", "t2/as_of": 3, "t2/code_version": "v1"},
    )
    yield dg.AssetObservation(["s", "failing"], partition=SECOND, tags={"t2/skipped": "true"})
    yield dg.AssetObservation(["s", "failing"], partition=context.partition_key)
    raise dg.Failure("no such column")


@dg.asset(key=["s", "plain"])
def plain() -> None: ...


def instance_of(home: Path) -> dg.DagsterInstance:
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home)))


def read(home: Path) -> list[tuple[Any, ...]]:
    engine = sa.create_engine(locate(home))
    with engine.connect() as connection:
        query = (
            "SELECT id, run_id, dagster_event_type, event, asset_key, partition FROM event_logs ORDER BY id"
        )
        return [tuple(row) for row in connection.execute(sa.text(query))]


def parsed(rows: list[tuple[Any, ...]]) -> list[Event]:
    events = (parse(*row[:4]) for row in rows if row[2] in KINDS)
    return [event for event in events if event is not None]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An instance in which a range, a failure, an unpartitioned run and things without a run happened."""
    folder = tmp_path_factory.mktemp("home")
    with instance_of(folder) as instance:
        ranged = {
            "dagster/asset_partition_range_start": FIRST,
            "dagster/asset_partition_range_end": SECOND,
        }
        dg.materialize([day], instance=instance, tags=ranged, raise_on_error=False)
        dg.materialize([failing], instance=instance, partition_key=THIRD, raise_on_error=False)
        dg.materialize([plain], instance=instance)
        instance.report_runless_asset_event(dg.AssetMaterialization(["s", "raw"], partition=FIRST))
        yield folder


def test_a_range_plans_and_builds_each_partition(home: Path) -> None:
    rows = read(home)
    events = [event for event in parsed(rows) if event.run_id == rows[0][1]]
    seen = [(type(event), getattr(event, "partition", None)) for event in events]
    assert seen[:2] == [(Planned, FIRST), (Planned, SECOND)]
    built = [event for event in events if isinstance(event, Materialized)]
    assert [(event.table, event.partition, event.as_of, event.code_version) for event in built] == [
        (TABLE, FIRST, 7, "v9"),
        (TABLE, SECOND, 7, "v9"),
    ]
    assert [event.check for event in events if isinstance(event, CheckPlanned)] == ["c"]
    # The range's last evaluation is the one that Dagster asks for; it has no partition.
    evaluations = [event for event in events if isinstance(event, Evaluated)]
    assert [(event.partition, event.passed, event.blocks) for event in evaluations] == [
        (FIRST, True, False),
        (SECOND, False, True),
        ("", True, False),
    ]
    assert (evaluations[0].description, evaluations[0].failed_rows) == ("two rows", 2)
    assert (evaluations[0].severity, evaluations[2].failed_rows) == ("ERROR", None)
    assert (evaluations[0].test, evaluations[0].as_of) == ("test.p.c", 5)
    assert (evaluations[2].test, evaluations[2].as_of) == ("", evaluations[2].id)


def test_a_failed_observation_tells_the_error_and_other_observations_tell_nothing(home: Path) -> None:
    failed = [event for event in parsed(read(home)) if isinstance(event, Failed)]
    assert [(event.table, event.partition, event.as_of, event.code_version) for event in failed] == [
        ("s/failing", THIRD, 3, "v1")
    ]
    assert failed[0].error == "no such column"
    skipped = [event for event in parsed(read(home)) if isinstance(event, Skipped)]
    assert [(event.table, event.partition) for event in skipped] == [("s/failing", SECOND)]


def test_runs_start_and_end_and_what_happens_outside_of_them_has_no_run(home: Path) -> None:
    events = parsed(read(home))
    statuses = [event.status for event in events if isinstance(event, RunChanged)]
    assert statuses == ["started", "failure", "started", "failure", "started", "success"]
    outside = [event for event in events if event.run_id == ""]
    assert [
        (type(event), event.table, event.partition) for event in outside if not isinstance(event, RunChanged)
    ] == [(Materialized, "s/raw", FIRST)]
    assert isinstance(outside[0], Materialized)
    assert outside[0].as_of == outside[0].id


def test_an_unpartitioned_table_has_no_partition(home: Path) -> None:
    events = [event for event in parsed(read(home)) if getattr(event, "table", "") == "s/plain"]
    assert [(type(event), getattr(event, "partition", None)) for event in events] == [
        (Planned, ""),
        (Materialized, ""),
    ]


def test_the_tests_write_what_dagster_writes(home: Path) -> None:
    for row in read(home):
        event = parse(*row[:4]) if row[2] in KINDS else None
        if event is not None and "\x00" not in row[3] and "\\u0000" not in row[3]:
            written = row_of(event)
            assert (written["run_id"], written["kind"]) == (row[1], row[2])
            assert (written["asset_key"], written["partition"]) == (row[4], row[5])
            assert part_of(json.loads(written["event"]), json.loads(row[3])) == []


def part_of(written: Any, real: Any, path: str = "") -> list[str]:
    """Return where the first value says something that the second does not."""
    if not written and not real:  # Dagster writes null where there are no tags
        return []
    if isinstance(written, dict) and isinstance(real, dict):
        return [
            problem
            for key, value in written.items()
            for problem in (part_of(value, real[key], f"{path}.{key}") if key in real else [f"{path}.{key}"])
        ]
    if isinstance(written, list) and isinstance(real, list) and not isinstance((*written, {})[0], str):
        return [
            problem
            for one, other in zip(written, real, strict=False)
            for problem in part_of(one, other, path)
        ]
    return [] if written == real else [path]


def entry_of(event: DagsterEvent, run_id: str) -> dg.EventLogEntry:
    return dg.EventLogEntry(None, 20, "", run_id, 1_704_400_000.0, job_name="j", dagster_event=event)


def test_queued_launching_and_canceled_runs_say_so(tmp_path: Path) -> None:
    with instance_of(tmp_path) as instance:
        job = dg.Definitions([plain]).resolve_implicit_global_asset_job_def()
        run = instance.create_run_for_job(job)
        for kind in ("PIPELINE_ENQUEUED", "PIPELINE_STARTING"):
            event = DagsterEvent(event_type_value=kind, job_name=run.job_name)
            instance.event_log_storage.store_event(entry_of(event, run.run_id))
        instance.report_run_canceling(run)
        instance.report_run_canceled(run)
        events = parsed(read(tmp_path))
        assert isinstance(events[0], Planned)
        statuses = [event.status for event in events if isinstance(event, RunChanged)]
        assert statuses == ["queued", "starting", "canceling", "canceled"]


def test_sqlite_deletes_a_wiped_tables_events_and_keeps_the_wipes_moment(tmp_path: Path) -> None:
    with instance_of(tmp_path) as instance:
        dg.materialize([plain], instance=instance)
        ledger = Ledger(locate(tmp_path))
        ledger.follow()
        assert ledger.landing("s/plain") is not None
        instance.wipe_assets([dg.AssetKey(["s", "plain"])])
        kinds = {row[2] for row in read(tmp_path)}
        assert kinds == {"PIPELINE_START", "PIPELINE_SUCCESS"}
        ledger.follow()
        assert ledger.landing("s/plain") is None
        dg.materialize([plain], instance=instance)
        ledger.follow()
        assert ledger.landing("s/plain") is not None
        followed = content(ledger)
        ledger.rebuild()
        assert content(ledger) == followed


def test_deleting_a_queued_run_forgets_it(tmp_path: Path) -> None:
    with instance_of(tmp_path) as instance:
        dg.materialize([plain], instance=instance)
        run = instance.create_run_for_job(dg.Definitions([plain]).resolve_implicit_global_asset_job_def())
        instance.report_runless_asset_event(dg.AssetMaterialization(["s", "raw"]))
        ledger = Ledger(locate(tmp_path))
        ledger.follow()
        assert [active.run_id for active in ledger.active_runs()] == [run.run_id]
        instance.delete_run(run.run_id)
        ledger.follow()
        assert ledger.active_runs() == []


def test_sqlite_gives_the_ids_of_deleted_events_out_again(tmp_path: Path) -> None:
    with instance_of(tmp_path) as instance:
        first = dg.materialize([plain], instance=instance)
        ledger = Ledger(locate(tmp_path))
        ledger.follow()
        last = dg.materialize([plain], instance=instance)
        ledger.follow()
        before = ledger.head()
        instance.delete_run(last.run_id)
        instance.report_runless_asset_event(dg.AssetMaterialization(["s", "raw"]))
        assert ledger.head() < before
        ledger.follow()
        landing = ledger.landing("s/plain")
        assert landing is not None
        assert landing.run_id == first.run_id
        assert ledger.landing("s/raw") is not None


def test_dagster_on_postgres_is_followed(tmp_path: Path, postgres: str) -> None:
    (tmp_path / "dagster.yaml").write_text(f"storage: {{postgres: {{postgres_url: '{postgres}'}}}}\n")
    with instance_of(tmp_path) as instance:
        dg.materialize([day], instance=instance, partition_key=FIRST)
        dg.materialize([plain], instance=instance)
        ledger = Ledger(locate(tmp_path), settle_seconds=0)
        assert ledger.follow() > 0
        landing = ledger.landing(TABLE, FIRST)
        assert landing is not None
        assert (landing.as_of, landing.code_version) == (7, "v9")
        assert ledger.follow() == 0
        assert ledger.cursor == ledger.head()
        instance.wipe_assets([dg.AssetKey(["s", "plain"])])
        ledger.follow()
        assert ledger.landing("s/plain") is None
        followed = content(ledger)
        ledger.rebuild()
        assert content(ledger) == followed
        assert ledger.landing(TABLE, FIRST) == landing
