"""What T2 takes for granted of the private API in definitions/_dagster/, one test an assumption."""

import os
import sys
import warnings
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution import compute_logs
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget
from runs import Runs, partitions

from t2.definitions._dagster.assets import assets_definition, quiet_preview_warnings, without_inputs
from t2.definitions._dagster.daemons import _refresh_what_changed
from t2.definitions._dagster.events import (
    AssetCheckEvaluation,
    check_targets,
    events_of_ancestors,
    head,
    is_retry,
    output_name,
    silent_output,
    version_tags,
)
from t2.definitions._dagster.runs import _capture_without_mirror
from t2.definitions._dagster.sqlite import plan_in_one_transaction
from t2.definitions.executor import threads_executor
from t2.runtime import memory

DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-10")
KEY = dg.AssetKey(["main", "days"])


def days(checks: int = 0) -> dg.AssetsDefinition:
    def report(context: dg.OpExecutionContext):
        for key in context.partition_keys:
            yield dg.AssetMaterialization(KEY, partition=key, tags=version_tags(context, KEY))
        for number in range(checks):
            for key in context.partition_keys:
                yield AssetCheckEvaluation(KEY, f"c{number}", passed=True, partition=key)
        for key in (*context.selected_asset_keys, *context.selected_asset_check_keys):
            yield silent_output(output_name(context.assets_def, key))

    with quiet_preview_warnings():
        return assets_definition(
            name="main__days",
            compute=without_inputs(report),
            spec=dg.AssetSpec(KEY, partitions_def=DAYS, code_version="v1"),
            checks=[
                dg.AssetCheckSpec(f"c{number}", asset=KEY, partitions_def=DAYS) for number in range(checks)
            ],
            backfill_policy=dg.BackfillPolicy.multi_run(5),
        )


@pytest.mark.parametrize("executor", [threads_executor(), dg.in_process_executor], ids=["t2", "in_process"])
def test_a_silent_output_adds_no_materialization_and_lets_readers_start(
    instance: dg.DagsterInstance, executor: dg.ExecutorDefinition
) -> None:
    @dg.asset(deps=[KEY], partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
    def reader() -> None: ...

    runs = Runs(dg.Definitions([days(), reader], executor=executor), instance)
    done = runs.build("main/days", "reader", tags=partitions("2024-01-01", "2024-01-02"))
    assert done.story == [
        "built days 2024-01-01",
        "built days 2024-01-02",
        "STEP_SUCCESS main__days",
        "built reader 2024-01-01",
        "built reader 2024-01-02",
        "STEP_SUCCESS reader",
    ]


def test_version_tags_are_what_dagster_itself_would_have_written(instance: dg.DagsterInstance) -> None:
    @dg.asset(code_version="v1", key=["main", "stock"], deps=["above"])
    def stock() -> None: ...

    def report(context: dg.OpExecutionContext):
        key = dg.AssetKey(["main", "ours"])
        yield dg.AssetMaterialization(key, tags=version_tags(context, key))

    ours = assets_definition(
        name="main__ours",
        compute=without_inputs(report),
        spec=dg.AssetSpec(["main", "ours"], code_version="v1", deps=["above"]),
        checks=[],
    )
    done = Runs(dg.Definitions([stock, ours], executor=dg.in_process_executor), instance).build(
        "main/stock", "main/ours"
    )
    first, second = (dict(built.tags or {}) for built in done.materializations())
    assert first == second
    assert "dagster/input_data_version/above" in first


def test_the_head_is_the_id_of_the_newest_asset_event(instance: dg.DagsterInstance) -> None:
    assert head(instance) == 0
    for _ in range(2):
        instance.report_runless_asset_event(dg.AssetMaterialization("a"))
        (record,) = instance.fetch_materializations(dg.AssetKey("a"), limit=1).records
        assert head(instance) == record.storage_id


def test_many_tables_share_the_definitions_of_their_outputs_and_inputs() -> None:
    first, second = days(2), days(2)
    assert [a is b for a, b in zip(first.op.output_defs, second.op.output_defs, strict=True)] == [True] * 3
    assert [definition.name for definition in first.op.output_defs] == ["result", "check_0", "check_1"]
    assert not first.op.output_defs[0].is_required


def test_a_repository_takes_tables_as_they_are_instead_of_copying_them() -> None:
    table = days()
    repository = dg.Definitions([table]).get_repository_def()
    assert repository.assets_defs_by_key[KEY] is table


def test_partitioned_checks_make_no_noise() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        days(2)


def test_a_check_of_a_range_is_recorded_for_each_partition(instance: dg.DagsterInstance) -> None:
    runs = Runs(dg.Definitions([days(1)], executor=threads_executor()), instance)
    done = runs.build("main/days", tags=partitions("2024-01-01", "2024-01-03"))
    assert [line for line in done.story if line.startswith("check")] == [
        f"check c0 2024-01-0{day}: passed" for day in (1, 2, 3)
    ]
    targets = check_targets(instance, KEY, ["2024-01-01", "2024-01-03"])
    assert sorted(targets) == ["2024-01-01", "2024-01-03"]
    assert {target.run_id for target in targets.values()} == {done.run.run_id}


def test_what_an_ancestor_reported_is_found_again(instance: dg.DagsterInstance) -> None:
    runs = Runs(dg.Definitions([days(1)], executor=threads_executor()), instance)
    first = runs.build("main/days", tags=partitions("2024-01-01", "2024-01-02"))
    second = runs.retry(first)
    assert is_retry(second.run)
    assert not is_retry(first.run)
    found = [type(event).__name__ for event in events_of_ancestors(instance, second.run, KEY)]
    assert found == ["AssetMaterialization"] * 2 + ["AssetCheckEvaluation"] * 2


def test_blocking_checks_stay_blocking_and_add_no_edges_between_ops() -> None:
    with quiet_preview_warnings():
        upper = assets_definition(
            name="upper",
            compute=without_inputs(lambda context: iter(())),
            spec=dg.AssetSpec("upper"),
            checks=[dg.AssetCheckSpec("c", asset="upper", blocking=True)],
        )
    lower = assets_definition(
        name="lower",
        compute=without_inputs(lambda context: iter(())),
        spec=dg.AssetSpec("lower", deps=["upper"]),
        checks=[],
    )
    defs = dg.Definitions([upper, lower])
    assert defs.resolve_asset_graph().get_check_spec(dg.AssetCheckKey(dg.AssetKey("upper"), "c")).blocking
    (edges,) = (
        deps for node, deps in defs.resolve_implicit_global_asset_job_def().dependencies.items() if deps
    )
    assert edges == {"upper": dg.DependencyDefinition("upper", "result")}


def test_a_table_that_reads_ten_years_of_hours_starts_without_listing_them(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = dg.HourlyPartitionsDefinition("2015-01-01-00:00")

    def report(context: dg.OpExecutionContext):
        yield dg.AssetMaterialization("total", tags=version_tags(context, dg.AssetKey("total")))
        yield silent_output("result")

    total = assets_definition(
        name="total",
        compute=without_inputs(report),
        spec=dg.AssetSpec("total", deps=["hours"], code_version="v1"),
        checks=[],
    )
    defs = dg.Definitions([dg.AssetSpec("hours", partitions_def=hours), total], executor=threads_executor())
    instance.report_runless_asset_event(
        dg.AssetMaterialization("hours", partition="2020-01-01-00:00", tags={"dagster/data_version": "7"})
    )
    listed: list[object] = []
    monkeypatch.setattr(
        dg.TimeWindowPartitionsDefinition, "get_partition_keys", lambda *rest, **more: listed.append(rest)
    )
    (built,) = Runs(defs, instance).build("total").materializations()
    assert (built.tags or {})["dagster/input_data_version/hours"] == "7"
    assert not listed


def test_compute_logs_are_captured_without_processes_beside(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Put back at the end: what is under test replaces it for good.
    monkeypatch.setattr(compute_logs, "tail_to_stream", compute_logs.tail_to_stream)
    manager, key = LocalComputeLogManager(str(tmp_path)), ["run", "compute_logs", "key"]
    before = set(memory.family(os.getpid()))
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        with manager.capture_logs(key):
            assert len(set(memory.family(os.getpid())) - before) >= 4
            print("mirrored", flush=True)
        _capture_without_mirror()
        with manager.capture_logs(["run", "compute_logs", "other"]):
            assert set(memory.family(os.getpid())) <= before
            print("captured", flush=True)
    assert manager.get_log_data(["run", "compute_logs", "other"]).stdout == b"captured\n"
    assert "captured" not in (tmp_path / "out").read_text()


def test_planned_events_are_the_same_when_they_are_stored_at_once(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dagster._core.instance.runs.run_domain import RunDomain

    def planned() -> list[tuple[str, object]]:
        runs = Runs(dg.Definitions([days(2)], executor=dg.in_process_executor), instance)
        runs.build("main/days", tags=partitions("2024-01-01", "2024-01-03"))
        [newest] = instance.get_runs(limit=1)
        kinds = {
            dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
            dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
        }
        events = [entry.dagster_event for entry in instance.all_logs(newest.run_id, of_type=kinds)]
        return [(event.event_type_value, event.event_specific_data) for event in events if event]

    stock = planned()
    monkeypatch.setattr(RunDomain, "_log_asset_planned_events", RunDomain._log_asset_planned_events)
    plan_in_one_transaction()
    assert planned() == stock
    assert len(stock) == 5


def test_a_refresh_asks_only_code_servers_that_loaded_anew(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    code = tmp_path / "code.py"
    code.write_text("import dagster as dg\ndefs = dg.Definitions([dg.AssetSpec('a')])\n")
    target = PythonFileTarget(str(code), None, str(tmp_path), "mine")
    with WorkspaceProcessContext(instance, target) as context:
        _refresh_what_changed(context)

        def entry() -> object:
            return context.get_current_workspace().code_location_entries["mine"]

        first = entry()
        context.refresh_workspace()
        assert entry() is first
        vars(first.code_location)["_server_id"] = "an earlier load"  # type: ignore[attr-defined]
        context.refresh_workspace()
        assert entry() is not first
