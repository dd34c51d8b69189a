"""Dagster's private API, all of it: an upgrade of Dagster breaks this file and nothing else.

Each assumption made here has its test in tests/definitions/test_dagster_assumptions.py.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import dagster as dg
from dagster._core.definitions.definition_config_schema import convert_user_facing_definition_config_schema
from dagster._core.definitions.input import InputDefinition
from dagster._core.definitions.output import OutputDefinition
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._serdes import ConfigurableClassData
from dagster._utils.tags import is_valid_tag_key as valid_tag_key
from dagster._utils.warnings import BetaWarning, PreviewWarning

__all__ = [
    "CheckRunHealthResult",
    "Compute",
    "ConfigurableClassData",
    "DefaultRunLauncher",
    "LaunchRunContext",
    "WorkerStatus",
    "assets_definition",
    "quiet_preview_warnings",
    "valid_tag_key",
]

Compute = Callable[[Any, Any], Iterator[Any]]

# How long a run that another process submitted (the web page) may wait for the queue to look again.
QUEUE_LOOP_SECONDS = 0.5

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
def _input(name: str) -> InputDefinition:
    return InputDefinition(name, dg.Nothing)


class TableAssets(dg.AssetsDefinition):
    """An asset that needs no resources: a repository would copy each, 2,000 times, to attach them."""

    def with_resources(self, resource_defs: Any) -> dg.AssetsDefinition:
        """Return the asset itself."""
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
    )
    return TableAssets(
        keys_by_input_name=inputs,
        keys_by_output_name={"result": own} if own else {},
        node_def=op,
        can_subset=True,
        backfill_policy=backfill_policy,
        check_specs_by_output_name=outputs,
        specs=[spec] if spec else [],
    )


# --- Launching runs, and the processes around them ----------------------------------------------------------
#
# Imported where they are used: the daemon's modules take a second and the worker and the launcher need few.


def location_of(run: dg.DagsterRun) -> str | None:
    """Return the name of the code location that a run was made from."""
    return run.remote_job_origin.location_name if run.remote_job_origin else None


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
        for _ in core_execute_run(recon_job_from_origin(run.job_code_origin), run, instance, False):
            pass


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
