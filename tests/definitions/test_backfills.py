"""Backfills from Dagster's pages, by its own daemons: partitions_per_run and concurrency are kept."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run_iterator
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.test_utils import create_run_for_test, create_test_daemon_workspace_context
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._utils.tags import TagConcurrencyLimitsCounter

from t2.definitions.coordinator import T2RunCoordinator
from t2.definitions.executor import threads_executor
from t2.definitions.limits import limits
from t2.project.model import Project
from t2.runtime.home import open_home

COORDINATOR = {
    "module": "t2.definitions.coordinator",
    "class": "T2RunCoordinator",
    "config": {"max_concurrent_runs": 4},
}

REPOSITORY = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("t2"), "__repository__")


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
    one = tagged(5, t2__backfill="b", t2__at_most_2="main/a")
    other = tagged(5, t2__backfill="b", t2__at_most_2="main/b")
    assert started(queued, one) == 2
    assert started(queued, [*one, *other]) == 3  # of four slots
    assert started(queued, tagged(9, current="yes")) == 9


def test_current_runs_go_first_and_backfills_of_both_kinds_share_all_slots_but_one(
    queued: dg.DagsterInstance,
) -> None:
    def queue(kind: str, number: int, priority: int, **tags: str) -> list[str]:
        given = {name.replace("__", "/"): value for name, value in tags.items()}
        given |= {"dagster/priority": str(priority)}
        return [
            create_run_for_test(
                queued,
                job_name=kind,
                status=dg.DagsterRunStatus.QUEUED,
                remote_job_origin=RemoteJobOrigin(REPOSITORY, kind),
                tags=given,
            ).run_id
            for _ in range(number)
        ]

    def start() -> list[str]:
        """Start what Dagster's daemon would, and say of which kind each is."""
        runs = dequeued(queued)
        for run in runs:
            queued.report_dagster_event(
                dg.DagsterEvent(dg.DagsterEventType.PIPELINE_START.value, run.job_name), run.run_id
            )
        return [run.job_name for run in runs]

    def end(kind: str) -> None:
        statuses = [dg.DagsterRunStatus.STARTED]
        for run in queued.get_runs(dg.RunsFilter(job_name=kind, statuses=statuses)):
            queued.report_run_canceled(run)

    queue("theirs", 4, -2, t2__backfill="abcdefgh", t2__at_most_2="main/a")
    queue("ours", 4, -2, t2__backfill="7")
    queue("catch-up", 1, -1)
    queue("current", 2, 0)
    assert start() == ["current", "current", "catch-up", "theirs"]
    end("current")
    assert start() == ["theirs", "ours"]  # `main/a` has its two, and with it there are three of backfills
    end("catch-up")
    assert start() == []  # the last slot
    queue("current", 2, 0)
    assert start() == ["current"]
    end("current")
    end("theirs")
    assert start() == ["current", "theirs", "theirs"]


def test_in_a_full_pool_what_is_current_gets_the_next_slot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dbt_project.yml").write_text("name: mine\n")
    monkeypatch.setenv("DAGSTER_HOME", str(open_home(tmp_path, {}).dagster))
    with dg.DagsterInstance.get() as instance:
        instance.get_runs()
        instance.all_instigator_state()
        instance.event_log_storage.set_concurrency_slots("warehouse", 1)

        def work(name: str, priority: int) -> int:
            """Execute a run in a process of its own, which says when it has the slot."""

            def step() -> None:
                with (tmp_path / "order").open("a") as order:
                    order.write(f"{name} ")
                until((tmp_path / f"end {name}").exists)

            executor = threads_executor(lambda: 1, "warehouse")
            asset = dg.asset(name="step", pool="warehouse")(step)
            job = dg.Definitions([asset], executor=executor).resolve_implicit_global_asset_job_def()
            tags = {"dagster/priority": str(priority)}
            run = instance.create_run_for_job(job, tags=tags)
            if (pid := os.fork()) == 0:
                with dg.DagsterInstance.get() as own:
                    list(execute_run_iterator(InMemoryJob(job), run, own))
                os._exit(0)
            return pid

        def order() -> list[str]:
            return (tmp_path / "order").read_text().split() if (tmp_path / "order").exists() else []

        def waiting() -> int:
            info = instance.event_log_storage.get_concurrency_info("warehouse")
            return len(info.pending_steps) - len(info.claimed_slots)

        pids = [work("first", -2)]
        until(lambda: order() == ["first"])
        pids += [work(name, -2) for name in ("second", "third")]
        until(lambda: waiting() == 2)
        pids.append(work("current", 0))
        until(lambda: waiting() == 3)
        for name in ("first", "second", "third", "current"):
            (tmp_path / f"end {name}").touch()
        for pid in pids:
            assert os.waitpid(pid, 0)[1] == 0
        assert order()[:2] == ["first", "current"]
        assert sorted(order()[2:]) == ["second", "third"]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


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
    assert {run.tags["t2/backfill"] for run in runs} == {"b"}
    assert len(dequeued(queued)) == 3
