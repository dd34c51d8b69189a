"""Backfills from Dagster's pages, by its own daemons: partitions_per_run and concurrency are kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._utils.tags import TagConcurrencyLimitsCounter

from t2.definitions.coordinator import T2RunCoordinator, limits
from t2.project.model import Project

COORDINATOR = {
    "module": "t2.definitions.coordinator",
    "class": "T2RunCoordinator",
    "config": {"max_concurrent_runs": 4},
}


@pytest.fixture
def queued() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(overrides={"run_coordinator": COORDINATOR}) as instance:
        assert isinstance(instance.run_coordinator, T2RunCoordinator)
        yield instance


def dequeued(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """What Dagster's own daemon would start now."""
    daemon = QueuedRunCoordinatorDaemon(interval_seconds=1)
    return daemon._get_runs_to_dequeue(instance, instance.get_concurrency_config(), fixed_iteration_time=None)


def started(instance: dg.DagsterInstance, runs: list[dg.DagsterRun]) -> int:
    """How many of some runs Dagster's queue lets start together."""
    config = instance.get_concurrency_config().run_queue_config
    assert config is not None
    counter = TagConcurrencyLimitsCounter(config.tag_concurrency_limits, [])
    found = 0
    for run in runs:
        if not counter.is_blocked(run):
            counter.update_counters_with_launched_item(run)
            found += 1
    return found


def tagged(number: int, **tags: str) -> list[dg.DagsterRun]:
    given = {name.replace("__", "/"): value for name, value in tags.items()}
    return [dg.DagsterRun(job_name="j", tags=given) for _ in range(number)]


def test_runs_of_one_table_are_limited_and_a_slot_is_left_for_everything_else(
    queued: dg.DagsterInstance,
) -> None:
    one = tagged(5, dagster__backfill="b", t2__at_most_2="main/a")
    other = tagged(5, dagster__backfill="b", t2__at_most_2="main/b")
    assert started(queued, one) == 2
    assert started(queued, [*one, *other]) == 3  # of four slots
    assert started(queued, tagged(9, t2__backfill="1")) == 3
    assert started(queued, tagged(9, current="yes")) == 9


def test_of_tables_with_the_same_limit_the_first_counts() -> None:
    found = {("a",): 2, ("b",): 4, ("c",): 2, ("d",): None}
    keys = [dg.AssetKey(list(name)) for name in found]
    assert limits(reversed(keys), lambda key: found[tuple(key.path)]) == {
        "t2/at_most_2": "a",
        "t2/at_most_4": "b",
    }


def test_a_backfill_by_dagsters_daemon_keeps_partitions_per_run_and_concurrency(
    queued: dg.DagsterInstance, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("T2_PROJECT_DIR", project.root)
    key = dg.AssetKey(["main", "orders_daily"])
    target = ModuleTarget(
        module_name="t2.definitions.location",
        attribute=None,
        working_directory=project.root,
        location_name="t2",
    )
    with create_test_daemon_workspace_context(target, queued) as context:
        graph = context.create_request_context().asset_graph
        keys = [f"2024-01-{day:02}" for day in range(1, 26)]
        backfill = PartitionBackfill.from_asset_partitions(
            backfill_id="b",
            asset_graph=graph,
            partition_names=keys,
            asset_selection=[key],
            backfill_timestamp=1_800_000_000.0,
            tags={},
            dynamic_partitions_store=queued,
            all_partitions=False,
            title=None,
            description=None,
            run_config=None,
        )
        queued.add_backfill(backfill)
        for _ in execute_backfill_iteration(context, logging.getLogger("test")):
            pass
    runs = queued.get_runs(dg.RunsFilter(tags={"dagster/backfill": "b"}))
    assert len(runs) == 3  # 25 partitions, 10 a run
    assert {run.tags["t2/at_most_4"] for run in runs} == {"main/orders_daily"}
    assert {run.tags["dagster/priority"] for run in runs} == {"-2"}
    assert len(dequeued(queued)) == 3
