import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator

import dagster as dg
import pytest

from t2.definitions.executor import threads_executor


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


def run(
    defs: dg.Definitions, instance: dg.DagsterInstance, config: dict[str, object] | None = None
) -> tuple[bool, list[dg.DagsterEvent]]:
    """Execute the implicit asset job with its own executor, as a run worker does."""
    job = defs.resolve_implicit_global_asset_job_def()
    made = instance.create_run_for_job(job, run_config={"execution": {"config": config}} if config else None)
    from dagster._core.definitions.job_base import InMemoryJob
    from dagster._core.execution.api import execute_run_iterator

    events = list(execute_run_iterator(InMemoryJob(job), made, instance))
    finished = instance.get_run_by_id(made.run_id)
    assert finished is not None
    return finished.is_success, events


def steps(events: list[dg.DagsterEvent], kind: dg.DagsterEventType) -> list[str | None]:
    return [event.step_key for event in events if event.event_type is kind]


def test_a_failing_step_skips_what_depends_on_it_and_the_others_finish(instance: dg.DagsterInstance) -> None:
    @dg.asset
    def bad() -> None:
        raise dg.Failure("no such column")

    @dg.asset(deps=[bad])
    def after_bad() -> None: ...

    @dg.asset
    def good() -> None: ...

    @dg.asset(deps=[good])
    def after_good() -> None: ...

    defs = dg.Definitions([bad, after_bad, good, after_good], executor=threads_executor())
    success, events = run(defs, instance)
    assert not success
    assert steps(events, dg.DagsterEventType.STEP_FAILURE) == ["bad"]
    assert set(steps(events, dg.DagsterEventType.STEP_SUCCESS)) == {"good", "after_good"}
    assert "after_bad" not in steps(events, dg.DagsterEventType.STEP_START)


def test_independent_steps_run_at_the_same_time_up_to_the_number_of_threads(
    instance: dg.DagsterInstance,
) -> None:
    together = threading.Barrier(2, timeout=10)

    @dg.asset
    def left() -> None:
        together.wait()

    @dg.asset
    def right() -> None:
        together.wait()

    defs = dg.Definitions([left, right], executor=threads_executor(lambda: 2))
    assert run(defs, instance)[0]


def test_one_thread_runs_one_step_at_a_time(instance: dg.DagsterInstance) -> None:
    running: list[str] = []
    most: list[int] = []

    def work(context: dg.AssetExecutionContext) -> None:
        running.append(context.asset_key.to_user_string())
        most.append(len(running))
        time.sleep(0.02)
        running.pop()

    assets = [dg.asset(name=name)(work) for name in ("a", "b", "c")]
    defs = dg.Definitions(assets, executor=threads_executor(lambda: 4))
    assert run(defs, instance, {"threads": 1})[0]
    assert max(most) == 1


def test_values_hooks_and_asynchronous_assets_work_as_in_dagsters_own_executors(
    instance: dg.DagsterInstance,
) -> None:
    told: list[str] = []

    @dg.success_hook
    def note(context: dg.HookContext) -> None:
        told.append(context.step_key)

    @dg.asset
    async def number() -> int:
        await asyncio.sleep(0.01)
        return 20

    @dg.asset
    async def other() -> int:
        await asyncio.sleep(0.01)
        return 22

    @dg.asset(hooks={note})
    def total(context: dg.AssetExecutionContext, number: int, other: int) -> int:
        context.add_output_metadata({"total": number + other})
        return number + other

    success, events = run(dg.Definitions([number, other, total], executor=threads_executor()), instance)
    assert success
    made = next(e for e in events if e.is_step_materialization and e.step_key == "total")
    assert made.materialization.metadata["total"] == dg.IntMetadataValue(42)
    assert told == ["total"]


def test_a_step_with_a_retry_policy_is_tried_again(instance: dg.DagsterInstance) -> None:
    attempts: list[int] = []

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=2, delay=0.05))
    def flaky() -> None:
        attempts.append(1)
        if len(attempts) < 3:
            raise ValueError("not yet")

    success, events = run(dg.Definitions([flaky], executor=threads_executor()), instance)
    assert success
    assert len(attempts) == 3
    assert steps(events, dg.DagsterEventType.STEP_RESTARTED) == ["flaky", "flaky"]


def test_a_termination_request_ends_the_run_and_starts_no_further_step(instance: dg.DagsterInstance) -> None:
    started: list[str] = []

    @dg.asset
    def slow() -> None:
        started.append("slow")
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(500):
            time.sleep(0.01)

    @dg.asset(deps=[slow])
    def later() -> None:
        started.append("later")

    begun = time.monotonic()
    success, events = run(dg.Definitions([slow, later], executor=threads_executor()), instance)
    assert not success
    assert started == ["slow"]
    assert steps(events, dg.DagsterEventType.STEP_FAILURE) == ["slow"]
    assert time.monotonic() - begun < 4


def test_a_pool_limits_what_runs_at_once(instance: dg.DagsterInstance) -> None:
    instance.event_log_storage.set_concurrency_slots("warehouse", 1)
    running: list[int] = []
    most: list[int] = []

    def work() -> None:
        running.append(1)
        most.append(len(running))
        time.sleep(0.02)
        running.pop()

    assets = [dg.asset(name=name, pool="warehouse")(work) for name in ("a", "b")]
    assert run(dg.Definitions(assets, executor=threads_executor()), instance)[0]
    assert max(most) == 1


def test_definitions_with_the_executor_merge_with_definitions_without_one(
    instance: dg.DagsterInstance,
) -> None:
    @dg.asset
    def theirs() -> None: ...

    @dg.asset
    def ours() -> None: ...

    merged = dg.Definitions.merge(
        dg.Definitions([ours], executor=threads_executor()), dg.Definitions([theirs])
    )
    success, events = run(merged, instance)
    assert success
    assert any("Executing 2 steps in process" in (event.message or "") for event in events)


def test_what_a_step_reported_last_counts_also_if_nobody_listened_until_it_ended(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Regression: between a wait without news and the look at the threads a step came to its end.
    from queue import Empty, SimpleQueue

    from t2.definitions import executor

    class Late:
        """A queue whose first wait ends without news, and when the step has."""

        def __init__(self) -> None:
            self._queue: SimpleQueue[object] = SimpleQueue()
            self.put, self.empty = self._queue.put, self._queue.empty
            self._waited = False

        def get(self, timeout: float) -> object:
            if self._waited:
                return self._queue.get(timeout=timeout)
            self._waited = True
            for thread in threading.enumerate():
                if thread.name == "only":
                    thread.join()
            raise Empty

    @dg.asset
    def only() -> None: ...

    monkeypatch.setattr(executor, "SimpleQueue", Late)
    success, events = run(dg.Definitions([only], executor=threads_executor()), instance)
    assert success
    assert steps(events, dg.DagsterEventType.STEP_SUCCESS) == ["only"]
