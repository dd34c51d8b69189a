"""Pools: how many steps of all runs work at once, and what becomes of the slots of a run that dies."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run_iterator

from t2.definitions import slots
from t2.definitions._dagster import pools as dagster_pools
from t2.definitions._dagster.sqlite import index_transaction
from t2.definitions.executor import threads_executor
from t2.runtime.home import open_home

COLUMNS = {
    "concurrency_slots": "concurrency_key, run_id, step_key, deleted",
    "pending_steps": "concurrency_key, run_id, step_key, priority, assigned_timestamp is null",
}


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dbt_project.yml").write_text("name: mine\n")
    monkeypatch.setenv("DAGSTER_HOME", str(open_home(tmp_path, {}).dagster))
    with dg.DagsterInstance.get() as instance:
        # Several processes at once would make the tables several times.
        instance.get_runs()
        instance.all_instigator_state()
        yield instance


def job(*steps: Callable[[], None], pool: str | None = "warehouse", threads: int = 4) -> dg.JobDefinition:
    assets = [dg.asset(name=f"{step.__name__}{number}", pool=pool)(step) for number, step in enumerate(steps)]
    executor = threads_executor(lambda: threads, "warehouse")
    return dg.Definitions(assets, executor=executor).resolve_implicit_global_asset_job_def()


def execute(made: dg.JobDefinition, instance: dg.DagsterInstance) -> bool:
    run = instance.create_run_for_job(made)
    list(execute_run_iterator(InMemoryJob(made), run, instance))
    done = instance.get_run_by_id(run.run_id)
    return done is not None and done.is_success


def fork(made: dg.JobDefinition) -> int:
    """Execute a run in a process of its own, which exits with 0 if the run succeeds."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with dg.DagsterInstance.get() as instance:
                code = 0 if execute(made, instance) else 1
        finally:
            os._exit(code)
    return pid


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def rows(instance: dg.DagsterInstance) -> dict[str, list[Any]]:
    storage: Any = instance.event_log_storage
    with storage.index_connection() as connection:
        return {
            table: sorted(map(tuple, connection.exec_driver_sql(f"select {names} from {table}")), key=str)
            for table, names in COLUMNS.items()
        }


def test_slots_are_claimed_and_given_back_as_dagster_does(instance: dg.DagsterInstance) -> None:
    with dg.instance_for_test() as other:
        dagsters: Any = other.event_log_storage
        ours: Any = instance.event_log_storage
        dice = random.Random(1)
        waiting: list[tuple[str, str, str]] = []
        for number in range(45):
            if number % 15 == 0:
                limit = (2, 1, 3)[number // 15]
                for storage in (dagsters, ours):
                    storage.set_concurrency_slots("a", limit)
                    storage.set_concurrency_slots("b", 1)
            if waiting and dice.random() < 0.45:
                pool, run_id, step = waiting.pop(dice.randrange(len(waiting)))
                dagsters.free_concurrency_slot_for_step(run_id, step)
                with index_transaction(instance) as connection:
                    slots.free(connection, run_id, step)
            else:
                pool, run_id, step = dice.choice("ab"), dice.choice("xyz"), f"s{number}"
                if waiting and dice.random() < 0.4:
                    pool, run_id, step = dice.choice(waiting)
                else:
                    waiting.append((pool, run_id, step))
                # Ages are whole seconds, so equal ages would leave the order open.
                priority = 1000 - number
                theirs = dagsters.claim_concurrency_slot(pool, run_id, step, priority).is_claimed
                with index_transaction(instance) as connection:
                    assert slots.claim(connection, pool, run_id, step, priority) == theirs
            assert rows(instance) == rows(other)


def test_a_pool_without_a_limit_gets_the_number_of_threads_and_one_that_was_set_stays(
    instance: dg.DagsterInstance,
) -> None:
    def nothing() -> None: ...

    def limits() -> dict[str, int]:
        return {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}

    assert execute(job(nothing, pool="heavy"), instance)
    assert limits() == {}
    assert execute(job(nothing, threads=3), instance)
    assert limits() == {"warehouse": 3}
    instance.event_log_storage.set_concurrency_slots("warehouse", 7)
    assert execute(job(nothing, threads=3), instance)
    assert limits() == {"warehouse": 7}


def test_the_steps_of_all_runs_together_are_never_more_than_the_limit(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    instance.event_log_storage.set_concurrency_slots("warehouse", 2)
    (tmp_path / "now").mkdir()

    def work() -> None:
        mine = tmp_path / "now" / str(time.monotonic_ns())
        mine.touch()
        with (tmp_path / "most").open("a") as most:
            most.write(f"{len(list((tmp_path / 'now').iterdir()))} ")
        time.sleep(0.25)
        mine.unlink()

    assert [ended(pid) for pid in [fork(job(*[work] * 4)) for _ in range(3)]] == [0, 0, 0]
    counts = (tmp_path / "most").read_text().split()
    assert len(counts) == 12
    assert set(counts) <= {"1", "2"}
    assert rows(instance)["pending_steps"] == []


def test_more_threads_than_slots_neither_block_the_run_nor_others_of_its_steps(
    instance: dg.DagsterInstance,
) -> None:
    instance.event_log_storage.set_concurrency_slots("warehouse", 1)
    order: list[str] = []

    def slow() -> None:
        time.sleep(0.2)
        order.append("slow")

    def free() -> None:
        order.append("free")

    assets = [dg.asset(name=f"slow{number}", pool="warehouse")(slow) for number in range(3)]
    assets += [dg.asset(name=f"free{number}")(free) for number in range(3)]
    defs = dg.Definitions(assets, executor=threads_executor(lambda: 8, "warehouse"))
    assert execute(defs.resolve_implicit_global_asset_job_def(), instance)
    assert sorted(order[:3]) == ["free", "free", "free"]
    assert len(order) == 6


def test_the_slots_of_a_killed_run_are_free_again_once_it_is_seen_to_have_failed(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dagster_pools, "POOLS_SECONDS", 0.5)
    instance.event_log_storage.set_concurrency_slots("warehouse", 1)

    def hang() -> None:
        (tmp_path / "hangs").touch()
        time.sleep(60)

    def nothing() -> None: ...

    killed = fork(job(hang))
    deadline = time.monotonic() + 30
    while not (tmp_path / "hangs").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(killed, signal.SIGKILL)
    assert ended(killed) == -signal.SIGKILL
    assert len(rows(instance)["pending_steps"]) == 1
    waits = fork(job(nothing))
    [run] = [run for run in instance.get_runs() if run.status is DagsterRunStatus.STARTED][-1:]
    time.sleep(1)
    assert os.waitpid(waits, os.WNOHANG) == (0, 0)
    instance.report_run_failed(run, "The process of the run has died.")
    assert ended(waits) == 0
