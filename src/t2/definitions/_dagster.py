"""Dagster's private API, all of it: an upgrade of Dagster breaks this file and nothing else.

Each assumption made here has its test in tests/definitions/test_dagster_assumptions.py.
"""

from __future__ import annotations

import asyncio
import copy
import ctypes
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import cache, cached_property, partial
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluation,
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster._core.definitions.asset_checks.asset_checks_definition import AssetChecksDefinition
from dagster._core.definitions.data_version import (
    DATA_VERSION_TAG,
    SKIP_PARTITION_DATA_VERSION_DEPENDENCY_THRESHOLD,
    compute_logical_data_version,
)
from dagster._core.definitions.definition_config_schema import convert_user_facing_definition_config_schema
from dagster._core.definitions.input import InputDefinition
from dagster._core.definitions.output import OutputDefinition
from dagster._core.definitions.partitions.utils.mapping import infer_partition_mapping
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.events import (
    AssetMaterializationPlannedData,
    DagsterEvent,
    EngineEventData,
    StepMaterializationData,
)
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
from dagster._core.execution.plan.execute_step import _build_data_version_tags, _get_input_provenance_data
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode, get_retries_config
from dagster._core.executor.base import Executor
from dagster._core.instance.config import PoolGranularity
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG as PARTITION_RANGE_END_TAG,
)
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_START_TAG as PARTITION_RANGE_START_TAG,
)
from dagster._core.storage.tags import BACKFILL_ID_TAG as BACKFILL_TAG
from dagster._core.storage.tags import (
    PARTITION_NAME_TAG as PARTITION_TAG,
)
from dagster._core.storage.tags import PRIORITY_TAG, RESUME_RETRY_TAG, RETRY_NUMBER_TAG
from dagster._record import replace
from dagster._serdes import ConfigurableClassData
from dagster._utils.tags import is_valid_tag_key as valid_tag_key
from dagster._utils.warnings import BetaWarning, PreviewWarning
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from t2.definitions import slots

__all__ = [
    "BACKFILL_TAG",
    "DATA_VERSION_TAG",
    "PARTITION_RANGE_END_TAG",
    "PARTITION_RANGE_START_TAG",
    "PARTITION_TAG",
    "PRIORITY_TAG",
    "ActiveExecution",
    "AssetCheckEvaluation",
    "CheckRunHealthResult",
    "Compute",
    "ConfigurableClassData",
    "DagsterEvent",
    "DagsterExecutionInterruptedError",
    "DefaultRunLauncher",
    "ExecutionPlan",
    "Executor",
    "LaunchRunContext",
    "PlanExecutionContext",
    "PlanOrchestrationContext",
    "Pools",
    "QueuedRunCoordinator",
    "RetryMode",
    "StepExecutionContext",
    "WorkerStatus",
    "active_execution",
    "asset_metadata",
    "assets_definition",
    "capture_logs",
    "check_targets",
    "close_run",
    "engine_event",
    "events_of_ancestors",
    "execute_run",
    "execute_step",
    "head",
    "interrupt",
    "is_retry",
    "load_code_location",
    "location_of",
    "output_name",
    "quiet_preview_warnings",
    "reload_code_server",
    "report_planned",
    "retries_config",
    "run_in_code_server",
    "serialized_ref",
    "server_id",
    "silent_output",
    "trigger_hooks",
    "valid_tag_key",
    "version_tags",
    "with_resources",
    "without_inputs",
]

Compute = Callable[[Any, Any], Iterator[Any]]

# How long a run that another process submitted (the web page) may wait for the queue to look again.
QUEUE_LOOP_SECONDS = 0.5

# How long the definitions of a very large project may take to load again.
RELOAD_SECONDS = 600

# How often a run that waits for a slot looks whether limits have changed or runs have died that hold slots.
POOLS_SECONDS = 10.0

ANY_CONFIG = convert_user_facing_definition_config_schema(None)


class SharedOut(dg.Out):
    """An optional output of type Nothing whose definition is made once a name, not once an op."""

    def to_definition(self, annotation_type: Any, name: Any, *rest: Any, **more: Any) -> OutputDefinition:
        """Return the one definition with this name."""
        return _output(name)


@cache
def _output(name: str) -> OutputDefinition:
    return OutputDefinition(dg.Nothing, name, is_required=False)


@cache
def _input(name: str) -> Any:
    return InputDefinition(name, dg.Nothing)


def without_inputs(run: Callable[[dg.OpExecutionContext], Iterator[Any]]) -> Compute:
    """Return the compute function of an op that takes no values; `run` is given its OpExecutionContext.

    Without an annotation, Dagster gives it the context that fits, for ops with an asset and without.
    """

    def compute(context, inputs):  # type: ignore[no-untyped-def]
        yield from run(context.op_execution_context)

    return compute


class TableAssets(dg.AssetsDefinition):
    """An asset whose checks are made by its own op, and that needs no resources."""

    def with_resources(self, resource_defs: Any) -> dg.AssetsDefinition:
        """Return the asset itself: a repository would copy each, 2,000 times, to attach resources."""
        return self

    @property
    def check_specs(self) -> Iterable[dg.AssetCheckSpec]:
        """The checks as they are declared."""
        return self._check_specs_by_output_name.values()

    @cached_property
    def check_specs_by_output_name(self) -> Mapping[str, dg.AssetCheckSpec]:
        """The checks as none of them were blocking, which is where a job looks for what readers wait for.

        A failed blocking check fails the op itself, so what reads the table is skipped. Edges from each check
        to each reader would say no more and double the size of the job and its snapshot.
        """
        return {
            name: replace(spec, blocking=False) if spec.blocking else spec
            for name, spec in self._check_specs_by_output_name.items()
        }


class SourceChecks(AssetChecksDefinition):
    """The checks of a source; they need no resources either."""

    def with_resources(self, resource_defs: Any) -> dg.AssetChecksDefinition:
        """Return the checks themselves."""
        return self


OUT = SharedOut(dg.Nothing, is_required=False)


@contextmanager
def quiet_preview_warnings() -> Iterator[None]:
    """Silence the warnings that partitioned check specs are a preview: one a check is 12,000 of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PreviewWarning)
        warnings.simplefilter("ignore", BetaWarning)
        yield


def assets_definition(
    *,
    name: str,
    compute: Compute,
    spec: dg.AssetSpec | None,
    checks: Sequence[dg.AssetCheckSpec],
    backfill_policy: dg.BackfillPolicy | None = None,
    pool: str | None = None,
) -> dg.AssetsDefinition:
    """Make the asset and the checks of one op; without `spec`, the checks alone."""
    outputs = {f"check_{number}": check for number, check in enumerate(checks)}
    own = spec.key if spec else None
    upstreams = [dep.asset_key for dep in spec.deps] if spec else [checks[0].asset_key]
    inputs = {key.to_python_identifier(): key for key in upstreams}
    op = dg.OpDefinition(
        compute_fn=compute,
        name=name,
        ins={input_name: _input(input_name) for input_name in inputs},
        outs=dict.fromkeys([*(["result"] if spec else []), *outputs], OUT),
        config_schema=ANY_CONFIG,
        pool=pool,
    )
    kind = TableAssets if spec else SourceChecks
    return kind(
        keys_by_input_name=inputs,
        keys_by_output_name={"result": own} if own else {},
        node_def=op,
        can_subset=True,
        backfill_policy=backfill_policy,
        check_specs_by_output_name=outputs,
        specs=[spec] if spec else [],
    )


# --- What a step reports ------------------------------------------------------------------------------------


def silent_output(name: str) -> dg.Output[None]:
    """Return an output that lets dependent steps start and records no materialization.

    Dagster gives the same mark to the outputs of source assets that observe themselves.
    """
    return dg.Output(None, name, metadata={SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True})


def output_name(assets_def: dg.AssetsDefinition, key: Any) -> str:
    """Return the name of the output of an asset key or asset check key."""
    return str(assets_def.output_names_by_entity_key[key])


def head(instance: dg.DagsterInstance) -> int:
    """Return the highest id of the event log, as the ledger numbers events; 0 if there is none."""
    return instance.event_log_storage.get_maximum_record_id() or 0


def version_tags(context: dg.OpExecutionContext, key: dg.AssetKey) -> dict[str, str]:
    """Return the tags by which Dagster tells what a materialization was made of, for its staleness page."""
    step = context.get_step_execution_context()
    code_version = step.job_def.asset_layer.get(key).code_version or step.run_id
    inputs = _get_input_provenance_data(key, step)
    versions = {upstream: data["data_version"] for upstream, data in inputs.items()}
    return _build_data_version_tags(
        compute_logical_data_version(code_version, versions), code_version, inputs, False
    )


def check_targets(
    instance: dg.DagsterInstance, key: dg.AssetKey, partitions: Sequence[str | None]
) -> dict[str | None, Any]:
    """Return, by partition, the materialization that a check of it looks at: the newest."""
    only = [partition for partition in partitions if partition is not None]
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, asset_partitions=only or None), limit=len(partitions)
    ).records
    return {
        record.partition_key: AssetCheckEvaluationTargetMaterializationData(
            storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
        )
        for record in reversed(records)
    }


def report_planned(
    instance: dg.DagsterInstance, run: dg.DagsterRun, key: dg.AssetKey, partition: str | None
) -> None:
    """Record that a run is going to build a partition, as its launch should have."""
    event = DagsterEvent.build_asset_materialization_planned_event(
        run.job_name, key.to_python_identifier(), AssetMaterializationPlannedData(key, partition, None)
    )
    instance.report_dagster_event(event, run.run_id)


def is_retry(run: dg.DagsterRun) -> bool:
    """Whether a run goes on where another stopped: from failure, or as an automatic retry."""
    return run.parent_run_id is not None and (
        run.tags.get(RESUME_RETRY_TAG) == "true" or RETRY_NUMBER_TAG in run.tags
    )


def events_of_ancestors(
    instance: dg.DagsterInstance, run: dg.DagsterRun, key: dg.AssetKey
) -> Iterator[dg.AssetMaterialization | AssetCheckEvaluation]:
    """Yield what the runs that this one retries reported of an asset, the oldest run first."""
    parent = instance.get_run_by_id(run.parent_run_id) if run.parent_run_id else None
    if parent is None:
        return
    if is_retry(parent):
        yield from events_of_ancestors(instance, parent, key)
    kinds = {dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_CHECK_EVALUATION}
    for entry in instance.all_logs(parent.run_id, of_type=kinds):
        data = entry.dagster_event.event_specific_data if entry.dagster_event else None
        found = data.materialization if isinstance(data, StepMaterializationData) else data
        if isinstance(found, dg.AssetMaterialization | AssetCheckEvaluation) and found.asset_key == key:
            yield found


# --- Executing a plan ---------------------------------------------------------------------------------------


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


class Pools(InstanceConcurrencyContext):
    """Dagster's pools as one run uses them.

    Stock Dagster queues every ready step for a full pool and looks after each of them every 1 to 15 s; a slot
    that got free stands empty for as long. Here one step a pool is in the queue, which Dagster keeps in the
    order of priority and age, and `claim` may be called as often as one likes: it costs a query.
    """

    def __init__(self, instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
        super().__init__(instance, run)
        self._queued: dict[str, str] = {}
        self._storage: Any = instance.event_log_storage
        per_run = self._pool_config.pool_granularity == PoolGranularity.RUN
        self._is_quick = _is_sqlite(instance) and not per_run

    def set_defaults(self, names: Iterable[str], limits: Mapping[str, Callable[[], int]]) -> None:
        """Store a limit for those of a run's pools that have none; `limits` are by the name of the pool."""
        default = self._pool_config.default_pool_limit
        for name in dict.fromkeys(names):
            info = self.get_pool_info(name)
            if default is not None and (info is None or (info.from_default and info.limit != default)):
                self._storage.initialize_concurrency_limit_to_default(name)
                self._sync_pools()
            elif info is None and name in limits:
                # Another run may do so at the same moment.
                with suppress(IntegrityError):
                    self._storage.set_concurrency_slots(name, limits[name]())
                self._sync_pools()

    def claim(self, concurrency_key: str, step_key: str, step_priority: int = 0) -> bool:
        """Whether the step has a slot of the pool now, or needs none."""
        if self._queued.setdefault(concurrency_key, step_key) != step_key:
            return False
        claimed = self._claim(concurrency_key, step_key, step_priority)
        if claimed:
            del self._queued[concurrency_key]
        return claimed

    def _claim(self, pool: str, step_key: str, priority: int) -> bool:
        if step_key in self._pending_claims:
            if time.time() > self._pending_timeouts[step_key]:
                self._sync_pools()  # the limit may have been lifted
                self._free_ended()
            elif not self._storage.can_claim_from_pending(pool, self._run_id, step_key):
                return False
            self._pending_timeouts[step_key] = 0.0
        if not self._is_quick or self.get_pool_info(pool) is None:
            return super().claim(pool, step_key, priority)
        with _one_transaction(self._instance) as connection:
            claimed = slots.claim(connection, pool, self._run_id, step_key, self._run_priority + priority)
        if claimed:
            self._pending_claims.discard(step_key)
            self._claims.add(step_key)
        else:
            self._pending_claims.add(step_key)
            self._pending_timeouts[step_key] = time.time() + POOLS_SECONDS
        return claimed

    def _free_ended(self) -> None:
        """Free the slots of runs that were killed, which Dagster's daemon does if it was told to only."""
        ids = list(self._storage.get_concurrency_run_ids())
        ended = dg.RunsFilter(run_ids=ids, statuses=FINISHED_STATUSES)
        for run in self._instance.get_runs(ended):
            self._storage.free_concurrency_slots_for_run(run.run_id)

    def free_step(self, step_key: str) -> None:
        """Give the slot of a step back."""
        if self._is_quick and step_key in self._claims:
            with _one_transaction(self._instance) as connection:
                slots.free(connection, self._run_id, step_key)
            self._claims.remove(step_key)
        else:
            super().free_step(step_key)


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
    if getattr(context.op_def.compute_fn, "__module__", None) == __name__:
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


# --- Launching runs, and the processes around them ----------------------------------------------------------
#
# Imported where they are used: the daemon's modules take a second and the worker and the launcher need few.


def location_of(run: dg.DagsterRun) -> str | None:
    """Return the name of the code location that a run was made from."""
    return run.remote_job_origin.location_name if run.remote_job_origin else None


def asset_metadata(workspace: Any, key: dg.AssetKey, name: str) -> Any:
    """Return a value of an asset's metadata as the code location declared it, None if it has none."""
    graph = workspace.asset_graph
    value = graph.get(key).metadata.get(name) if graph.has(key) else None
    return getattr(value, "value", value)


def serialized_ref(instance: dg.DagsterInstance) -> str:
    """Return what another process opens the same instance from."""
    from dagster._serdes import serialize_value

    return serialize_value(instance.get_ref())


def server_id(workspace: Any, location: str) -> str | None:
    """Return the id that a code server gets anew with each load of its code."""
    if workspace is None or not workspace.has_code_location(location):
        return None
    found: str | None = getattr(workspace.get_code_location(location), "server_id", None)
    return found


def reload_code_server(socket: str) -> str | None:
    """Have a code server load its code again and wait for that; return the error if it cannot."""
    from dagster._grpc.client import DagsterGrpcClient
    from dagster._grpc.types import ListRepositoriesResponse
    from dagster._serdes import deserialize_value
    from dagster_shared.error import SerializableErrorInfo

    client = DagsterGrpcClient(socket=socket)
    client.reload_code(timeout=RELOAD_SECONDS)
    answer = deserialize_value(client.list_repositories(), (ListRepositoriesResponse, SerializableErrorInfo))
    return answer.to_string() if isinstance(answer, SerializableErrorInfo) else None


def run_in_code_server(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool | None:
    """Whether the code server executes a run that was launched in it; None if the run was not.

    False also when the server does not answer: its runs are its children and end with it.
    """
    import json

    from dagster._core.storage.tags import GRPC_INFO_TAG
    from dagster._grpc.client import DagsterGrpcClient
    from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
    from dagster._serdes import deserialize_value

    if GRPC_INFO_TAG not in run.tags:
        return None
    info = json.loads(run.tags[GRPC_INFO_TAG])
    client = DagsterGrpcClient(
        host=info.get("host"),
        port=info.get("port"),
        socket=info.get("socket"),
        use_ssl=bool(info.get("use_ssl")),
    )
    try:
        answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id), timeout=5)
    except Exception:
        return False
    return bool(deserialize_value(answer, CanCancelExecutionResult).can_cancel)


def load_code_location(module: str, attribute: str | None, working_directory: str, location: str) -> None:
    """Load a code location as its code server does; every later reconstruction uses what is loaded."""
    from dagster._core.definitions.reconstruct import ReconstructableRepository
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
    from dagster._grpc.server import LoadedRepositories

    origin = LoadableTargetOrigin(
        module_name=module, attribute=attribute, working_directory=working_directory
    )
    loaded = LoadedRepositories(origin, None, [], None, code_location_name=location)
    repositories = {
        pointer: loaded.definitions_by_name[name]
        for name, pointer in loaded.code_pointers_by_repo_name.items()
    }
    for repository in repositories.values():
        _ = repository.asset_graph
        repository.get_all_jobs()
    reconstruct = ReconstructableRepository.get_definition

    def get_definition(recon: ReconstructableRepository) -> dg.RepositoryDefinition:
        kept = repositories.get(recon.pointer)
        return kept if kept is not None else reconstruct(recon)

    ReconstructableRepository.get_definition = get_definition  # type: ignore[method-assign,assignment]


def keep_engines() -> None:
    """Keep SQLAlchemy's engine of each SQLite file, and with it the statements that it has compiled.

    Stock Dagster makes one an event. 64 are kept: a run writes two files, the daemon one more a run.
    """
    import dagster._core.storage.event_log.sqlite.sqlite_event_log as module

    storage: Any = module
    create_engine = storage.create_engine
    kept: dict[str, Any] = {}
    lock = threading.Lock()

    def engine_of(url: str, **options: Any) -> Any:
        with lock:
            if url not in kept:
                while len(kept) >= 64:
                    kept.pop(next(iter(kept)))
                kept[url] = create_engine(url, **options)
            return kept[url]

    storage.create_engine = engine_of


_buffer = threading.local()


def _is_sqlite(instance: dg.DagsterInstance) -> bool:
    from dagster._core.storage.event_log import SqliteEventLogStorage

    return isinstance(instance.event_log_storage, SqliteEventLogStorage)


@contextmanager
def _one_transaction(instance: dg.DagsterInstance) -> Iterator[Connection]:
    """Open a connection to SQLite's index of events that has the write lock."""
    storage: Any = instance.event_log_storage
    with storage.index_connection() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection


@contextmanager
def one_transaction(instance: dg.DagsterInstance) -> Iterator[None]:
    """Store the events of the body, in this thread, at its end and in one transaction of each SQLite file.

    Stock Dagster opens four connections and commits three times for each check that it stores: 5 ms, of which
    this leaves 1. Other databases get their events one by one.
    """
    storage: Any = instance.event_log_storage
    if not _is_sqlite(instance):
        yield
        return
    store_event = _buffered_store()
    events: list[Any] = []
    _buffer.events = events
    try:
        yield
    finally:
        del _buffer.events
        # Not before: another thread that logs holds the logger's lock and waits for the storage's.
        with storage._db_lock, ExitStack() as stack:
            _buffer.connections, _buffer.stack = {}, stack
            try:
                for event in events:
                    store_event(storage, event)
            finally:
                del _buffer.connections, _buffer.stack


@cache
def _buffered_store() -> Callable[[Any, Any], None]:
    """Have SQLite's event log keep events for this thread's transaction; return how it stores one."""
    from dagster._core.storage.event_log import SqliteEventLogStorage

    connect, has_table = SqliteEventLogStorage._connect, SqliteEventLogStorage.has_table
    store_event = SqliteEventLogStorage.store_event
    present: set[tuple[str, str]] = set()

    @contextmanager
    def shared_connect(self: Any, shard: str) -> Iterator[Any]:
        connections = getattr(_buffer, "connections", None)
        if connections is None:
            with connect(self, shard) as connection:
                yield connection
            return
        if shard not in connections:
            unlocked = copy.copy(self)
            unlocked._db_lock = nullcontext()  # the transaction holds the lock, which is not reentrant
            connections[shard] = _buffer.stack.enter_context(connect(unlocked, shard))
        yield connections[shard]

    def keep_event(self: Any, event: Any) -> None:
        events = getattr(_buffer, "events", None)
        if events is None:
            store_event(self, event)
        else:
            events.append(event)

    def has_table_once(self: Any, table_name: str) -> bool:
        # Asked anew for each check, on a connection of its own.
        place = (self._base_dir, table_name)
        if place not in present and has_table(self, table_name):
            present.add(place)
        return place in present

    SqliteEventLogStorage._connect = shared_connect  # type: ignore[method-assign]
    SqliteEventLogStorage.store_event = keep_event  # type: ignore[method-assign]
    SqliteEventLogStorage.has_table = has_table_once  # type: ignore[method-assign]
    return store_event


def execute_run(instance_ref: str, run_id: str) -> None:
    """Execute a run in this process, which was forked for it; interrupts end it as canceled."""
    from dagster._core.events import EngineEventData
    from dagster._core.instance.ref import InstanceRef
    from dagster._grpc.impl import core_execute_run
    from dagster._serdes import deserialize_value
    from dagster._utils.hosted_user_process import recon_job_from_origin
    from dagster._utils.interrupts import capture_interrupts

    ref = deserialize_value(instance_ref, InstanceRef)
    with capture_interrupts(), dg.DagsterInstance.from_ref(ref) as instance:
        run = instance.get_run_by_id(run_id)
        if run is None or run.job_code_origin is None:
            return
        pid = os.getpid()
        instance.report_engine_event(
            f"Started process for run (pid: {pid}), warm.", run, EngineEventData.in_process(pid)
        )
        _capture_without_mirror()
        for _ in core_execute_run(recon_job_from_origin(run.job_code_origin), run, instance, False):
            pass


def _capture_without_mirror() -> None:
    """Have what a run prints go to its compute logs only.

    Stock Dagster starts four processes a run that copy it to the output of this process too.
    """
    from dagster._core.execution import compute_logs

    module: Any = compute_logs
    module.tail_to_stream = lambda path, stream: nullcontext((None, None))


def close_run(instance_ref: str, run_id: str, cause: str) -> None:
    """Record that a run whose process is gone has failed, or was canceled if that was asked for."""
    from dagster._core.instance.ref import InstanceRef
    from dagster._serdes import deserialize_value

    with dg.DagsterInstance.from_ref(deserialize_value(instance_ref, InstanceRef)) as instance:
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return
        if run.status == dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, cause)
        else:
            instance.report_run_failed(run, cause)


@contextmanager
def daemon_controller(
    instance: dg.DagsterInstance,
    workspace_file: str,
    *,
    sensor_loop_seconds: float,
    backfill_loop_seconds: int,
    sweep: Callable[[dg.DagsterInstance], None],
) -> Iterator[Any]:
    """Start Dagster's daemons with shorter loops; `sweep` runs before each look of the run monitoring.

    A run that this process submits wakes the queue at once: in stock Dagster it waits for the next look.
    """
    import dagster._daemon.controller as controllers
    import dagster._daemon.sensor as sensors
    from dagster._core.workspace.load_target import WorkspaceFileTarget

    sensors.MIN_INTERVAL_LOOP_TIME = sensor_loop_seconds  # type: ignore[assignment]
    controllers.DEFAULT_DAEMON_INTERVAL_SECONDS = backfill_loop_seconds
    with controllers.daemon_controller_from_instance(
        instance,
        WorkspaceFileTarget(paths=[workspace_file]),
        gen_daemons=lambda instance: _daemons(instance, sweep),
        # Each look at each sensor is a line at the level info.
        log_level="warning",
    ) as controller:
        yield controller


def _daemons(instance: dg.DagsterInstance, sweep: Callable[[dg.DagsterInstance], None]) -> list[Any]:
    from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator
    from dagster._daemon.controller import create_daemon_of_type
    from dagster._daemon.daemon import MonitoringDaemon
    from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

    submitted = threading.Event()

    class Queue(QueuedRunCoordinatorDaemon):
        def core_loop(self, workspace_process_context: Any, shutdown_event: Any) -> Any:
            # IntervalDaemon's loop looks at the time only every half second.
            while True:
                submitted.clear()
                yield from self.run_iteration(workspace_process_context)
                yield None
                submitted.wait(self.interval_seconds)

    class Monitoring(MonitoringDaemon):
        def run_iteration(self, workspace_process_context: Any) -> Any:
            sweep(workspace_process_context.instance)
            yield from super().run_iteration(workspace_process_context)

    coordinator = instance.run_coordinator
    if isinstance(coordinator, QueuedRunCoordinator):
        submit = coordinator.submit_run

        def submit_and_wake(context: Any) -> dg.DagsterRun:
            run = submit(context)
            submitted.set()
            return run

        coordinator.submit_run = submit_and_wake  # type: ignore[method-assign]
    own = {
        QueuedRunCoordinatorDaemon.daemon_type(): lambda: Queue(QUEUE_LOOP_SECONDS),
        MonitoringDaemon.daemon_type(): lambda: Monitoring(instance.run_monitoring_poll_interval_seconds),
    }
    return [
        own.get(kind, lambda kind=kind: create_daemon_of_type(kind, instance))()
        for kind in instance.get_required_daemon_types()
    ]
