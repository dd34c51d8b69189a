"""A run as its launcher and its process see it: where it came from, executing it, closing it."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any

import dagster as dg
from dagster._core.events import EngineEventData
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator
from dagster._serdes import ConfigurableClassData

__all__ = [
    "CheckRunHealthResult",
    "ConfigurableClassData",
    "DefaultRunLauncher",
    "LaunchRunContext",
    "QueuedRunCoordinator",
    "WorkerStatus",
    "close_run",
    "execute_run",
    "location_of",
    "run_in_code_server",
    "serialized_ref",
    "server_id",
]


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


def execute_run(instance_ref: str, run_id: str) -> None:
    """Execute a run in this process, which was forked for it; interrupts end it as canceled."""
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
