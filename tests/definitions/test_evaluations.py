"""What Dagster's Automation tab shows of the planner's verdicts."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
import sqlalchemy as sa
from dagster._core.storage.schedules.schema import AssetDaemonAssetEvaluationsTable
from dagster._core.storage.tags import TICK_ID_TAG
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget
from dagster._daemon.sensor import execute_sensor_iteration
from dagster_graphql.test.utils import execute_dagster_graphql

import t2
from t2.definitions.evaluations import KEPT_SECONDS, RANGES, Partitions, policy, spelled
from t2.definitions.planner_sensor import Planner
from t2.ledger.ledger import Ledger
from t2.ledger.storage import locate
from t2.planning.grid import Grid
from t2.project.model import Cron, Project

NOW = datetime(2024, 1, 10, 12, tzinfo=timezone.utc)

RECORDS = """
query ($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode {
      automationCondition { label }
      targetingInstigators { ... on Sensor { name sensorType } }
    }
  }
  assetConditionEvaluationRecordsOrError(assetKey: $key, limit: 10) {
    ... on AssetConditionEvaluationRecords {
      records {
        evaluationId
        numRequested
        runIds
        rootUniqueId
        isLegacy
        evaluationNodes {
          uniqueId
          userLabel
          numTrue
          numCandidates
          isPartitioned
          childUniqueIds
          entityKey { ... on AssetKey { path } }
        }
        evaluation {
          evaluationNodes {
            ... on UnpartitionedAssetConditionEvaluationNode {
              metadataEntries { label ... on TextMetadataEntry { text } }
            }
          }
        }
      }
    }
  }
}
"""
PARTITION = """
query ($key: AssetKeyInput!, $evaluation: ID!, $partition: String!) {
  assetConditionEvaluationForPartition(assetKey: $key, evaluationId: $evaluation, partition: $partition) {
    evaluationNodes {
      ... on SpecificPartitionAssetConditionEvaluationNode {
        description
        status
        metadataEntries { label ... on TextMetadataEntry { text } }
      }
    }
  }
}
"""
TRUE = """
query ($key: AssetKeyInput!, $evaluation: ID!, $node: String!) {
  truePartitionsForAutomationConditionEvaluationNode(
    assetKey: $key, evaluationId: $evaluation, nodeUniqueId: $node
  )
}
"""


class Page:
    """The web server's GraphQL for one code location."""

    def __init__(self, context: WorkspaceProcessContext) -> None:
        self.context = context

    def ask(self, query: str, table: str, **variables: Any) -> dict[str, Any]:
        result: Any = execute_dagster_graphql(
            self.context.create_request_context(), query, {"key": {"path": table.split("/")}, **variables}
        )
        assert not result.errors
        data: dict[str, Any] = result.data
        return data

    def records(self, table: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask(RECORDS, table)["assetConditionEvaluationRecordsOrError"][
            "records"
        ]
        return found


@pytest.fixture
def page(project: Project, instance: dg.DagsterInstance, tmp_path: Path) -> Iterator[Page]:
    file = tmp_path / "location.py"
    file.write_text(f"import t2\ndefs = t2.build_defs({project.root!r})\n")
    with WorkspaceProcessContext(
        instance, PythonFileTarget(str(file), attribute=None, working_directory=None, location_name="tiny")
    ) as context:
        yield Page(context)


def planner_of(project: Project, instance: dg.DagsterInstance, tick: int = 1) -> Planner:
    planner = Planner(project, Ledger(locate(Path(instance.root_directory))))
    planner.tick = tick
    return planner


def land(instance: dg.DagsterInstance, table: str, *days: str | None) -> None:
    for day in days:
        event = dg.AssetMaterialization(dg.AssetKey(table.split("/")), partition=day)
        instance.report_runless_asset_event(event)


def looks(planner: Planner, instance: dg.DagsterInstance, now: datetime = NOW) -> None:
    """Plan once, ask for what is ready and tell of it."""
    assert planner.look(instance, now) is not None
    list(planner.requests())
    planner.tell(instance)


def rows(instance: dg.DagsterInstance) -> list[tuple[str, int, int]]:
    """Return (table, tick, size in bytes) of all stored evaluations."""
    table = AssetDaemonAssetEvaluationsTable.c
    storage: Any = instance.schedule_storage
    with storage.connect() as connection:
        found = connection.execute(
            sa.select(table.asset_key, table.evaluation_id, sa.func.length(table.asset_evaluation_body))
        )
        return [(dg.AssetKey.from_db_string(key).to_user_string(), tick, size) for key, tick, size in found]


def chain(record: Mapping[str, Any]) -> list[tuple[str, int, int | None]]:
    return [(node["userLabel"], node["numTrue"], node["numCandidates"]) for node in record["evaluationNodes"]]


def test_the_tab_of_a_waiting_table_names_its_policy_and_what_it_waits_for(
    project: Project, instance: dg.DagsterInstance, page: Page
) -> None:
    land(instance, "raw/orders", "2024-01-01", "2024-01-02")
    looks(planner_of(project, instance), instance)
    node = page.ask(RECORDS, "main/orders_daily")["assetNodeOrError"]
    assert node == {
        "automationCondition": {"label": "T2: eager"},
        "targetingInstigators": [{"name": "t2_planner", "sensorType": "AUTOMATION"}],
    }
    (record,) = page.records("main/orders_daily")
    assert (record["numRequested"], record["isLegacy"]) == (2, False)
    waited = "waiting_on_ancestor_1 = raw / orders (2024-01-09)"
    assert chain(record) == [
        ("T2: eager", 2, None),
        ("changed or missing", 9, None),
        ("inputs are ready", 2, 9),
        (waited, 0, 1),
    ]
    assert [one["entityKey"]["path"] for one in record["evaluationNodes"]][2:] == [
        ["main", "orders_daily"],
        ["raw", "orders"],
    ]
    true = page.ask(TRUE, "main/orders_daily", evaluation="1", node=record["rootUniqueId"])
    assert sorted(true["truePartitionsForAutomationConditionEvaluationNode"]) == ["2024-01-01", "2024-01-02"]
    told = page.ask(PARTITION, "main/orders_daily", evaluation="1", partition="2024-01-09")
    root = told["assetConditionEvaluationForPartition"]["evaluationNodes"][0]
    assert root == {
        "description": "T2: eager",
        "status": "FALSE",
        "metadataEntries": [{"label": "waiting_on_ancestor_1", "text": "raw / orders (2024-01-09)"}],
    }


def test_an_unpartitioned_table_tells_its_ancestors_as_metadata(
    project: Project, instance: dg.DagsterInstance, page: Page
) -> None:
    looks(planner_of(project, instance), instance)
    (record,) = page.records("main/totals")
    assert chain(record) == [
        ("T2: eager", 0, 1),
        ("changed or missing", 1, 1),
        ("inputs are ready", 0, 1),
        ("waiting_on_ancestor_1 = main / orders_daily (2024-01-01)", 0, 1),
    ]
    assert record["evaluation"]["evaluationNodes"][0]["metadataEntries"] == [
        {"label": "waiting_on_ancestor_1", "text": "main / orders_daily (2024-01-01)"}
    ]


def test_only_what_changed_is_stored_and_little_of_it(project: Project, instance: dg.DagsterInstance) -> None:
    planner = planner_of(project, instance)
    looks(planner, instance)
    stored = rows(instance)
    assert sorted(key for key, _, _ in stored) == sorted(project.tables)
    assert max(size for _, _, size in stored) < 5000

    planner.tick = 2
    assert planner.look(instance, NOW + timedelta(seconds=5)) is not None  # what it asked for was lost
    planner.tell(instance)
    instance.report_runless_asset_event(dg.AssetMaterialization("somebody_elses"))
    looks(planner, instance)
    assert rows(instance) == stored

    planner.tick = 3
    land(instance, "raw/orders", "2024-01-01")
    looks(planner, instance)
    assert sorted(key for key, tick, _ in rows(instance) if tick == 3) == [
        "main/balance",
        "main/orders_daily",
    ]


def test_a_new_process_stores_nothing_that_another_stored(
    project: Project, instance: dg.DagsterInstance
) -> None:
    looks(planner_of(project, instance), instance)
    stored = rows(instance)
    looks(planner_of(project, instance, tick=2), instance)
    assert rows(instance) == stored


def test_an_evaluation_names_the_runs_that_its_tick_asked_for(
    project: Project, instance: dg.DagsterInstance, page: Page
) -> None:
    planner = planner_of(project, instance)
    assert planner.look(instance, NOW) is not None
    (request,) = planner.requests()
    assert request.asset_selection is not None
    job = t2.build_defs(project.root).resolve_implicit_global_asset_job_def()
    keys = frozenset(request.asset_selection)
    run = instance.create_run_for_job(
        job.get_subset(asset_selection=keys), asset_selection=keys, tags={TICK_ID_TAG: "1"}
    )
    planner.tell(instance)
    (record,) = page.records("main/fine")
    assert (record["numRequested"], record["runIds"]) == (1, [run.run_id])
    (waits,) = page.records("main/totals")
    assert waits["runIds"] == []


def test_what_a_tick_tells_twice_replaces_itself(project: Project, instance: dg.DagsterInstance) -> None:
    planner = planner_of(project, instance)
    looks(planner, instance)
    land(instance, "raw/orders", "2024-01-01")
    looks(planner, instance)
    assert sorted((key, tick) for key, tick, _ in rows(instance)) == [
        (key, 1) for key in sorted(project.tables)
    ]


def test_old_evaluations_are_purged(project: Project, instance: dg.DagsterInstance) -> None:
    looks(planner_of(project, instance), instance)
    later = NOW + timedelta(seconds=KEPT_SECONDS)
    planner = planner_of(project, instance, tick=2)
    table = AssetDaemonAssetEvaluationsTable
    storage: Any = instance.schedule_storage
    with storage.connect() as connection:
        connection.execute(sa.update(table).values(create_timestamp=NOW - timedelta(seconds=1)))
    looks(planner, instance, later)
    assert {tick for _, tick, _ in rows(instance)} == {2}


def test_outside_the_daemon_nothing_is_stored(project: Project, instance: dg.DagsterInstance) -> None:
    planner = planner_of(project, instance)
    planner.tick = None
    looks(planner, instance)
    assert rows(instance) == []


def test_a_condition_is_called_after_the_policy(project: Project) -> None:
    table = project.tables["main/totals"]
    assert policy(table) == "T2: eager"
    assert policy(replace(table, automation="manual")) == "T2: manual"
    ticking = replace(table, automation=Cron("0 6 * * *", "Europe/Berlin"))
    assert policy(ticking) == "T2: cron 0 6 * * * (Europe/Berlin)"


def test_of_many_ranges_the_newest_are_named_and_all_are_counted(project: Project) -> None:

    scattered = Partitions.of(np.arange(0, 2 * (RANGES + 3), 2))
    assert (scattered.count, len(scattered.ranges)) == (RANGES + 3, RANGES)
    partitioning = project.tables["main/orders_daily"].partitioning
    assert partitioning is not None
    assert spelled(Grid.of(partitioning), scattered).startswith("17 older, 2024-02-04, 2024-02-06, ")
    together = Partitions.of(np.array([0, 1, 2, 6]))
    assert spelled(Grid.of(partitioning), together) == "2024-01-01 to 2024-01-03, 2024-01-07"


def test_the_daemon_ticks_the_planner_and_its_evaluations_name_tick_and_runs(
    project: Project, tmp_path: Path
) -> None:
    queue = {"module": "dagster.core.run_coordinator", "class": "QueuedRunCoordinator"}
    file = tmp_path / "location.py"
    file.write_text(f"import t2\ndefs = t2.build_defs({project.root!r})\n")
    target = PythonFileTarget(str(file), attribute=None, working_directory=None, location_name="tiny")
    with (
        dg.instance_for_test(overrides={"run_coordinator": queue}) as instance,
        WorkspaceProcessContext(instance, target) as context,
    ):
        for _ in range(2):
            time.sleep(1)  # the sensor's interval
            list(execute_sensor_iteration(context, logging.getLogger(), None, None, None))
        fine = dg.AssetKey(["main", "fine"])
        (run,) = [run for run in instance.get_runs() if fine in (run.asset_selection or ())]
        record = Page(context).records("main/fine")[-1]
        assert record["evaluationId"] == run.tags[TICK_ID_TAG]
        assert (record["numRequested"], record["runIds"]) == (1, [run.run_id])
        assert {key for key, _, _ in rows(instance)} == set(project.tables)
