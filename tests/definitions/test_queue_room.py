"""How many runs the planner's sensor adds to the queue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterRunStatus as Status
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.test_utils import create_run_for_test

from t2.definitions.queue_room import AHEAD, QueueRoom

SLOTS = 2
REPOSITORY = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("t2"), "__repository__")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster.yaml").write_text(f"concurrency: {{runs: {{max_concurrent_runs: {SLOTS}}}}}\n")
    with dg.DagsterInstance.from_config(str(tmp_path)) as made:
        yield made


def add(instance: dg.DagsterInstance, status: Status, count: int, priority: str = "0") -> None:
    for _ in range(count):
        create_run_for_test(
            instance,
            job_name="job",
            status=status,
            remote_job_origin=RemoteJobOrigin(REPOSITORY, "job"),
            tags={"dagster/priority": priority},
        )


def taken(instance: dg.DagsterInstance, priority: int = 0, most: int = 50) -> int:
    room = QueueRoom(instance)
    return sum(room.take(priority) for _ in range(most))


def test_while_a_slot_is_free_all_of_it_is_queued(instance: dg.DagsterInstance) -> None:
    add(instance, Status.STARTED, SLOTS - 1)
    add(instance, Status.QUEUED, 30)  # they wait for something else
    assert taken(instance) == 50


def test_while_all_slots_are_taken_few_runs_wait_in_the_queue(instance: dg.DagsterInstance) -> None:
    add(instance, Status.STARTED, 1)
    add(instance, Status.STARTING, 1)
    assert taken(instance) == AHEAD
    add(instance, Status.QUEUED, 3)
    assert taken(instance) == AHEAD - 3


def test_what_is_less_urgent_takes_no_room(instance: dg.DagsterInstance) -> None:
    add(instance, Status.STARTED, SLOTS)
    add(instance, Status.QUEUED, 20, priority="-2")
    assert taken(instance, priority=-2) == 0
    assert taken(instance, priority=0) == AHEAD
    add(instance, Status.QUEUED, 1, priority="soon")  # Dagster's queue takes it for 0
    assert taken(instance, priority=0) == AHEAD - 1


def test_a_queue_without_a_limit_takes_everything(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        add(instance, Status.STARTED, 100)
        assert taken(instance) == 50
