"""Launching runs warm: Dagster's run launcher that hands each run to the worker of its code location.

In dagster.yaml:

    run_launcher:
      module: t2.definitions.launcher
      class: T2RunLauncher
      config:
        max_memory_mb: 4096

Without a worker (none was started, or it died or hangs) a run starts as it does in stock Dagster, in a new
process of the code server: slower by the time that the definitions take to load, otherwise the same.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import DagsterInvariantViolationError, DagsterRun

from t2.definitions._dagster.runs import (
    CheckRunHealthResult,
    ConfigurableClassData,
    DefaultRunLauncher,
    LaunchRunContext,
    WorkerStatus,
    location_of,
    run_in_code_server,
    serialized_ref,
    server_id,
)
from t2.runtime import handover

__all__ = ["T2RunLauncher", "in_process_tags"]

PROCESS_TAG = "t2/process"


def in_process_tags() -> dict[str, str]:
    """Return the tags of a run that this process executes itself, so that its death is noticed too."""
    pid = os.getpid()
    return {PROCESS_TAG: f"{socket.gethostname()} {pid} {handover.process_started(pid)}"}


def _is_alive(process: str) -> bool:
    host, pid, started = process.split()
    # Of another machine's processes nothing is known: they count as alive.
    return host != socket.gethostname() or handover.is_alive(int(pid), int(started))


class T2RunLauncher(DefaultRunLauncher):
    """Hand runs to the warm worker of their code location.

    `timeout_seconds` bounds the wait for a worker that loads changed code. A run whose process uses more than
    `max_memory_mb` MiB is killed; its share of the memory that it has in common with the worker is included.
    """

    def __init__(
        self,
        timeout_seconds: int = 120,
        max_memory_mb: int | None = None,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        super().__init__(inst_data=inst_data)
        self._timeout = timeout_seconds
        self._max_memory_mb = max_memory_mb
        self._handing_over: set[str] = set()

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Return the schema of `config:` in dagster.yaml."""
        return {
            "timeout_seconds": dg.Field(dg.IntSource, is_required=False, default_value=120),
            "max_memory_mb": dg.Field(dg.Noneable(dg.IntSource), is_required=False, default_value=None),
        }

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]
    ) -> T2RunLauncher:
        """Make the launcher that dagster.yaml describes."""
        return cls(inst_data=inst_data, **config_value)

    @property
    def home(self) -> Path:
        """Where the workers of this instance announce themselves: DAGSTER_HOME."""
        return Path(self._instance.root_directory)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Hand the run to its worker, or start it in the code server if no worker takes it."""
        run_id = context.dagster_run.run_id
        self._handing_over.add(run_id)
        try:
            if not self._hand_over(context):
                super().launch_run(context)
        finally:
            self._handing_over.discard(run_id)

    def _hand_over(self, context: LaunchRunContext) -> bool:
        run = context.dagster_run
        location = location_of(run)
        if location is None or handover.find_worker(self.home, location) is None:
            return False
        request = {
            "run_id": run.run_id,
            "instance": serialized_ref(self._instance),
            "generation": server_id(context.workspace, location),
            "max_memory_mb": self._max_memory_mb,
        }
        try:
            handover.hand_over(self.home, location, request, loading_seconds=self._timeout)
        except handover.WorkerUnreachableError as error:
            self._instance.report_engine_event(f"Not started warm but in the code server: {error}.", run)
            return False
        except handover.WorkerRefusedError as error:
            message = f"The worker of {location} did not start the run: {error}"
            raise DagsterInvariantViolationError(message) from error
        return True

    def terminate(self, run_id: str) -> bool:
        """Interrupt the run, which then ends as canceled; False if nothing executes it."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        if handover.run_pid(self.home, run_id) is None:
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
        self._instance.report_run_canceling(run)
        location = location_of(run)
        worker = handover.find_worker(self.home, location) if location else None
        if worker is not None:
            try:
                return bool(handover.ask(worker, {"terminate": run_id}, timeout=5).get("terminated"))
            except (handover.WorkerUnreachableError, handover.WorkerRefusedError):
                pass
        return handover.interrupt_run(self.home, run_id)

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Dagster's run monitoring may ask for each started run whether its process lives."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Say whether the process of a run lives."""
        if self.is_executed(run):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "The process of the run has died")

    def is_executed(self, run: DagsterRun) -> bool:
        """Whether a process executes the run, or is just being asked to."""
        if run.run_id in self._handing_over or handover.run_pid(self.home, run.run_id) is not None:
            return True
        if process := run.tags.get(PROCESS_TAG):
            return _is_alive(process)
        return bool(run_in_code_server(self._instance, run))
