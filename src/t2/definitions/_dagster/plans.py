"""Executing the plan of a run."""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import SKIP_PARTITION_DATA_VERSION_DEPENDENCY_THRESHOLD
from dagster._core.definitions.partitions.utils.mapping import infer_partition_mapping
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.events import DagsterEvent, EngineEventData
from dagster._core.execution.api import ExecuteRunWithPlanIterable
from dagster._core.execution.compute_logs import create_compute_log_file_key
from dagster._core.execution.context.system import (
    PlanExecutionContext,
    PlanOrchestrationContext,
    StepExecutionContext,
)
from dagster._core.execution.context_creation_job import PlanExecutionContextManager
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.execute_plan import _trigger_hook, dagster_event_sequence_for_step
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode, get_retries_config
from dagster._core.executor.base import Executor

from t2.definitions._dagster.assets import without_inputs
from t2.definitions._dagster.pools import Pools

__all__ = [
    "ActiveExecution",
    "DagsterEvent",
    "DagsterExecutionInterruptedError",
    "ExecutionPlan",
    "Executor",
    "PlanExecutionContext",
    "PlanOrchestrationContext",
    "RetryMode",
    "StepExecutionContext",
    "active_execution",
    "capture_logs",
    "engine_event",
    "execute_step",
    "interrupt",
    "retries_config",
    "trigger_hooks",
    "with_resources",
]


def retries_config() -> Any:
    """Return the field by which an executor's step retries are switched."""
    return get_retries_config()  # type: ignore[no-untyped-call]


def engine_event(context: Any, message: str) -> DagsterEvent:
    """Record a note of the executor in a run."""
    return DagsterEvent.engine_event(context, message, EngineEventData.in_process(os.getpid()))


def with_resources(
    plan_context: PlanOrchestrationContext, execute: Callable[..., Iterator[DagsterEvent]]
) -> Iterator[DagsterEvent]:
    """Execute a plan in this process, with the resources of its job."""
    return iter(
        ExecuteRunWithPlanIterable(
            execution_plan=plan_context.execution_plan,
            iterator=execute,
            execution_context_manager=PlanExecutionContextManager(
                job=plan_context.job,
                retry_mode=plan_context.retry_mode,
                execution_plan=plan_context.execution_plan,
                run_config=plan_context.run_config,
                dagster_run=plan_context.dagster_run,
                instance=plan_context.instance,
                raise_on_error=plan_context.raise_on_error,
                output_capture=plan_context.output_capture,
                step_dependency_config=plan_context.executor.step_dependency_config,
            ),
        )
    )


@contextmanager
def active_execution(
    context: PlanExecutionContext,
    plan: ExecutionPlan,
    threads: int,
    limits: Mapping[str, Callable[[], int]],
) -> Iterator[tuple[ActiveExecution, Pools]]:
    """Enter Dagster's state machine of a run, with its pools; `limits` are for pools that have none."""
    with Pools(context.instance, context.dagster_run) as pools:
        pools.set_defaults((step.pool for step in plan.get_all_steps_in_topo_order() if step.pool), limits)
        with plan.start(
            retry_mode=context.retry_mode,
            max_concurrent=threads,
            instance_concurrency_context=pools,
            step_dependency_config=context.step_dependency_config,
        ) as active:
            yield active, pools


def capture_logs(
    context: PlanExecutionContext, plan: ExecutionPlan, stack: ExitStack
) -> Iterator[DagsterEvent]:
    """Capture what the process prints into the compute logs of the run, until the stack is left."""
    manager = context.instance.compute_log_manager
    keys = [step.key for step in plan.get_steps_to_execute_in_topo_order()]
    file_key = create_compute_log_file_key()  # type: ignore[no-untyped-call]
    log_key = manager.build_log_key_for_run(context.run_id, file_key)
    captured = stack.enter_context(manager.capture_logs(log_key))
    yield DagsterEvent.capture_logs(context, keys, log_key, captured)


def execute_step(context: StepExecutionContext) -> Iterator[DagsterEvent]:
    """Execute one step in the current thread, with an event loop of its own for asynchronous ops."""
    loop = asyncio.new_event_loop()
    context._event_loop = loop
    if getattr(context.op_def.compute_fn, "__module__", None) == without_inputs.__module__:
        few = partial(_few_partitions, context)
        context.has_asset_partitions_for_input = few  # type: ignore[method-assign]
    try:
        yield from dagster_event_sequence_for_step(context)
    finally:
        loop.close()


def _few_partitions(context: StepExecutionContext, input_name: str) -> bool:
    """Whether an input has partitions that are few enough for Dagster to look up the version of each.

    It lists all keys only to find that they are too many: 0.9 s for ten years of hours, before each step.
    """
    layer = context.job_def.asset_layer
    key = layer.get_asset_key_for_node_input(context.node_handle, input_name)
    upstream = layer.get(key).partitions_def if key is not None and layer.has(key) else None
    if key is None or upstream is None or context.assets_def is None:
        return False
    mapping = infer_partition_mapping(
        context.assets_def.get_partition_mapping_for_dep(key), context.entity_partitions_def, upstream
    )
    many = SKIP_PARTITION_DATA_VERSION_DEPENDENCY_THRESHOLD
    return not isinstance(mapping, dg.AllPartitionMapping) or upstream.get_num_partitions() < many


def trigger_hooks(context: StepExecutionContext, events: Sequence[DagsterEvent]) -> Iterator[DagsterEvent]:
    """Tell the hooks of an op what its step reported."""
    return _trigger_hook(context, events)


def interrupt(thread: threading.Thread) -> None:
    """Raise Dagster's interrupt in a thread as soon as it executes Python again."""
    if thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(DagsterExecutionInterruptedError)
        )
