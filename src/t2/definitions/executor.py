"""T2's executor: the steps of a run in one process, in dependency order, several at a time in threads.

Dagster's own choices are one step at a time, or a new process for each step, which would load dbt and the
project anew. A step waits for the warehouse nearly all of its time, so threads are enough. A failing step
fails itself and skips what depends on it; the others finish. Step retries, pools, priorities and skipping
are Dagster's own state machine (`ActiveExecution`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import dagster as dg

from t2.definitions._dagster.plans import (
    ActiveExecution,
    DagsterEvent,
    DagsterExecutionInterruptedError,
    ExecutionPlan,
    Executor,
    PlanExecutionContext,
    PlanOrchestrationContext,
    RetryMode,
    StepExecutionContext,
    active_execution,
    capture_logs,
    engine_event,
    execute_step,
    interrupt,
    retries_config,
    trigger_hooks,
    with_resources,
)
from t2.definitions._dagster.pools import Pools

DEFAULT_THREADS = 4
# How often the main thread looks for a termination request while every step is busy.
POLL_SECONDS = 0.2
# How often a run that waits for a slot of a pool asks for it.
POOL_SECONDS = 0.1


def threads_executor(
    default_threads: Callable[[], int] | None = None, pool: str | None = None
) -> dg.ExecutorDefinition:
    """Return the executor; `default_threads` is asked only when a run's configuration does not say.

    It is also the limit that `pool` gets, if nobody has set one.
    """

    @dg.executor(
        name="t2",
        config_schema={
            "threads": dg.Field(
                dg.Noneable(dg.IntSource),
                is_required=False,
                default_value=None,
                description="How many steps run at once; the threads of the dbt profile if not given.",
            ),
            "retries": retries_config(),
        },
        requirements=[],
    )
    def t2(context: dg.InitExecutorContext) -> ThreadsExecutor:
        config: Any = context.executor_config
        retries = RetryMode.from_config(config["retries"]) or RetryMode.ENABLED
        return ThreadsExecutor(retries, config["threads"], default_threads, pool)

    return t2


class ThreadsExecutor(Executor):
    """Execute the steps of a run in threads of this process."""

    def __init__(
        self,
        retries: RetryMode,
        threads: int | None,
        default_threads: Callable[[], int] | None,
        pool: str | None,
    ) -> None:
        self._retries = retries
        self._threads = threads
        self._default_threads = default_threads
        self._limits = {pool: self._profile_threads} if pool else {}

    @property
    def retries(self) -> RetryMode:
        """Return whether steps with a retry policy are tried again."""
        return self._retries

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[DagsterEvent]:
        """Yield the events of all steps, in the order they happen."""
        keys = execution_plan.step_keys_to_execute
        threads = min(self._threads or self._profile_threads(), len(keys)) if len(keys) > 1 else 1
        note = f"process {os.getpid()}, up to {threads} at once"
        yield engine_event(plan_context, f"Executing {len(keys)} steps in {note}.")

        yield from with_resources(plan_context, partial(_execute, threads=threads, limits=self._limits))

    def _profile_threads(self) -> int:
        return self._default_threads() if self._default_threads else DEFAULT_THREADS


def _execute(
    job_context: PlanExecutionContext,
    execution_plan: ExecutionPlan,
    threads: int,
    limits: Mapping[str, Callable[[], int]],
) -> Iterator[DagsterEvent]:
    with ExitStack() as stack:
        active, pools = stack.enter_context(active_execution(job_context, execution_plan, threads, limits))
        yield from capture_logs(job_context, execution_plan, stack)
        yield from Steps(job_context, active, pools, threads).events()


@dataclass
class Running:
    """A step that runs, and what it reported so far, which hooks are told."""

    thread: Thread
    context: StepExecutionContext
    events: list[DagsterEvent] = field(default_factory=list)


class Steps:
    """The steps of one run: starts those that are ready and passes on what they report."""

    def __init__(
        self, context: PlanExecutionContext, active: ActiveExecution, pools: Pools, threads: int
    ) -> None:
        self._context = context
        self._active = active
        self._pools = pools
        self._threads = threads
        self._queue: SimpleQueue[tuple[str, DagsterEvent | BaseException | None]] = SimpleQueue()
        self._running: dict[str, Running] = {}
        self._error: BaseException | None = None
        self._interrupted = False
        self._look = True  # whether a step may have become ready

    def events(self) -> Iterator[DagsterEvent]:
        """Yield the events of all steps; once they are over, raise if one broke or was interrupted."""
        while self._running or not (self._stopping or self._active.is_complete):
            if self._look and not self._stopping:
                yield from self._start()
            yield from self._next()
            if self._active.check_for_interrupts():
                yield from self._interrupt()
        if self._error is not None:
            raise self._error
        if self._interrupted:
            raise DagsterExecutionInterruptedError

    @property
    def _stopping(self) -> bool:
        return self._interrupted or self._error is not None

    def _start(self) -> Iterator[DagsterEvent]:
        self._look = False
        free = self._threads - len(self._running)
        for step in self._active.get_steps_to_execute(limit=free) if free else ():
            step_context = self._context.for_step(step, self._active.get_known_state())
            thread = Thread(target=self._run, args=(step.key, step_context), name=step.key, daemon=True)
            self._running[step.key] = Running(thread, step_context)
            thread.start()
        yield from self._active.concurrency_event_iterator(self._context)
        if not self._running:
            yield from self._active.plan_events_iterator(self._context)

    def _run(self, key: str, step_context: StepExecutionContext) -> None:
        error: BaseException | None = None
        try:
            for event in execute_step(step_context):
                self._queue.put((key, event))
        except BaseException as raised:
            error = raised
        self._queue.put((key, error))

    def _next(self) -> Iterator[DagsterEvent]:
        """Yield the next event that a step reported, if there is one within the poll interval."""
        try:
            waits = self._pools.has_pending_claims()
            key, reported = self._queue.get(timeout=POOL_SECONDS if waits else POLL_SECONDS)
        except Empty:
            self._look = True  # a retry may be due, a slot of a pool free
            ended = [key for key, running in self._running.items() if not running.thread.is_alive()]
            # What a thread reports is in the queue before it ends: nothing there, then it was interrupted.
            for key in ended if self._queue.empty() else ():
                yield from self._finish(key)
            return
        if isinstance(reported, DagsterEvent):
            yield reported
            self._active.handle_event(reported)
            self._running[key].events.append(reported)
            return
        if reported is not None and self._error is None:
            self._error = reported
        yield from self._finish(key)

    def _finish(self, key: str) -> Iterator[DagsterEvent]:
        self._look = True
        running = self._running.pop(key, None)
        if running is None:
            return
        running.thread.join()
        self._active.verify_complete(self._context, key)
        for event in self._active.plan_events_iterator(self._context):
            running.events.append(event)
            yield event
        yield from trigger_hooks(running.context, running.events)

    def _interrupt(self) -> Iterator[DagsterEvent]:
        self._interrupted = True
        self._active.mark_interrupted()
        steps = ", ".join(self._running) or "none"
        yield engine_event(self._context, f"Interrupted; steps still running: {steps}.")
        for running in self._running.values():
            interrupt(running.thread)
