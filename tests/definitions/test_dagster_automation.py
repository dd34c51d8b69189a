"""What T2 takes for granted of Dagster's declarative automation (definitions/_dagster/automation.py)."""

from __future__ import annotations

from dataclasses import replace

import dagster as dg
import pytest

import t2
from t2.definitions._dagster.automation import AutomationSensor, KnownAssets, never, tick_id
from t2.project.model import Project

DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-10")


def test_a_condition_that_is_never_true_requests_nothing(instance: dg.DagsterInstance) -> None:
    @dg.asset(partitions_def=DAYS, automation_condition=never("T2: eager"))
    def days() -> None: ...

    @dg.asset(automation_condition=never("T2: manual"))
    def whole() -> None: ...

    condition = never("T2: eager")
    assert condition is never("T2: eager")
    assert condition.get_label() == "T2: eager"
    assert condition.is_serializable
    evaluated = dg.evaluate_automation_conditions(dg.Definitions([days, whole]), instance)
    assert evaluated.total_requested == 0


def test_dagster_adds_no_sensor_of_its_own_for_what_the_planner_targets(project: Project) -> None:
    defs = t2.build_defs(project).get_repository_def()
    assert {sensor.name for sensor in defs.sensor_defs} == {"t2_planner", "t2_monitors"}


def test_dagster_adds_its_sensor_for_the_conditions_of_others(project: Project) -> None:
    @dg.asset(automation_condition=dg.AutomationCondition.eager())
    def theirs() -> None: ...

    both = dg.Definitions.merge(t2.build_defs(project), dg.Definitions([theirs]))
    repository = both.get_repository_def()
    added = repository.get_sensor_def("default_automation_condition_sensor")
    assert added.asset_selection is not None
    assert added.asset_selection.resolve(repository.asset_graph) == {theirs.key}
    planner = repository.get_sensor_def("t2_planner").asset_selection
    assert planner is not None
    tables = {dg.AssetKey(key.split("/")) for key in project.tables}
    assert planner.resolve(repository.asset_graph) == tables
    told = planner.to_serializable_asset_selection(repository.asset_graph)
    assert told.resolve(repository.asset_graph) == tables


def test_assets_are_named_one_by_one_only_beside_others(project: Project) -> None:
    graph = t2.build_defs(project).get_repository_def().asset_graph
    keys = {dg.AssetKey(key.split("/")) for key in project.tables}
    assert KnownAssets(keys, keys).to_serializable_asset_selection(graph) == dg.AssetSelection.all()
    checks = KnownAssets(keys, {dg.AssetKey(["raw", "orders"])}).resolve_checks(graph)
    assert {check.asset_key.to_user_string() for check in checks} == {"raw/orders"}


def test_a_sensor_with_other_metadata_stays_what_it_is(project: Project) -> None:
    defs = t2.build_defs(project).with_definition_metadata_update(lambda old: {**old, "team": "data"})
    sensor = defs.get_repository_def().get_sensor_def("t2_planner")
    assert isinstance(sensor, AutomationSensor)
    assert sensor.metadata["team"].value == "data"
    assert sensor.sensor_type.value == "AUTOMATION"


@pytest.mark.parametrize(
    ("key", "tick"), [(["repository", "t2_planner", "17"], 17), (["repository", "t2_planner", "x"], None)]
)
def test_the_log_key_of_a_tick_ends_with_its_id(
    instance: dg.DagsterInstance, key: list[str], tick: int | None
) -> None:
    with dg.build_sensor_context(instance) as context:
        context._log_key = key
        assert tick_id(context) == tick


def test_only_what_is_built_may_have_a_condition(project: Project) -> None:
    manual = replace(project.tables["main/fine"], automation="manual")
    changed = replace(project, tables={**project.tables, manual.key: manual})
    graph = t2.build_defs(changed).get_repository_def().asset_graph
    labels = {
        key.to_user_string(): condition.get_label()
        for key in graph.get_all_asset_keys()
        if (condition := graph.get(key).automation_condition)
    }
    assert labels == {**dict.fromkeys(project.tables, "T2: eager"), "main/fine": "T2: manual"}
