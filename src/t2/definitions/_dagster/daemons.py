"""Dagster's daemons."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator

# How long a run that another process submitted (the web page) may wait for the queue to look again.
QUEUE_LOOP_SECONDS = 0.5


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
        _refresh_what_changed(controller._workspace_process_context)
        yield controller


def _refresh_what_changed(context: Any) -> None:
    """Have the workspace's regular refresh leave code locations that their servers have not loaded again.

    It asks each code server for all of its definitions once a minute: 8 CPU seconds for 2,000 tables.
    """
    refresh = context.refresh_workspace

    def is_same(entry: Any) -> bool:
        location = entry.code_location
        server_id = getattr(location, "server_id", None)
        return server_id is not None and location.client.get_server_id() == server_id

    def refresh_if_changed() -> None:
        entries = context.get_current_workspace().code_location_entries.values()
        if not all(map(is_same, entries)):
            refresh()

    context.refresh_workspace = refresh_if_changed


def _daemons(instance: dg.DagsterInstance, sweep: Callable[[dg.DagsterInstance], None]) -> list[Any]:
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
