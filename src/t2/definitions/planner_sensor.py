"""The sensor that asks the planner what to build."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone

import dagster as dg

from t2.definitions._dagster import PARTITION_RANGE_END_TAG, PARTITION_RANGE_START_TAG
from t2.definitions.launches import Launches
from t2.ledger.ledger import Ledger
from t2.planning.planner import Plan, plan
from t2.planning.verdict import Request
from t2.project.model import Project

# How long a tick waits for news before it ends as skipped; the daemon's patience with a sensor is 60 s.
PATIENCE_SECONDS = 20.0
POLL_SECONDS = 0.1


class Planner:
    """Plans whenever the event log has news or time alone changed something; keeps the arrays in between."""

    def __init__(self, project: Project, ledger: Ledger) -> None:
        self.project = project
        self.ledger = ledger
        self._launches = Launches(project, ledger)
        self._plan: Plan | None = None

    def look(self, instance: dg.DagsterInstance, now: datetime) -> Plan | None:
        """Return a new plan, or None when nothing can have changed since the last one."""
        settled = (
            self._plan is not None and not self._plan.requests and now.timestamp() < self._plan.next_change
        )
        if settled and not self.ledger.has_news():
            return None
        self.ledger.follow()
        if self._launches.complete(instance):
            self.ledger.follow()
        self._plan = plan(self.project, self.ledger.state(self.project, now), now)
        return self._plan


def planner_sensor(
    project: Project, open_ledger: Callable[[dg.DagsterInstance], Ledger]
) -> dg.SensorDefinition:
    """Build the sensor `t2_planner`; it is running by default and looks at every table."""
    planners: dict[str, Planner] = {}

    @dg.sensor(
        name="t2_planner",
        asset_selection=dg.AssetSelection.all(),
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Requests every partition whose inputs are ready, and no other.",
    )
    def t2_planner(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        instance_id = str(context.instance_ref)
        if instance_id not in planners:
            planners[instance_id] = Planner(project, open_ledger(context.instance))
        planner = planners[instance_id]
        threads = bool(context.instance.get_sensor_settings().get("use_threads"))
        deadline = time.monotonic() + (PATIENCE_SECONDS if threads else 0.0)
        while True:
            decided = planner.look(context.instance, datetime.now(timezone.utc))
            if decided is not None and decided.requests:
                yield from (run_request(request) for request in decided.requests)
                return
            if time.monotonic() >= deadline:
                yield dg.SkipReason("nothing to build")
                return
            time.sleep(POLL_SECONDS)

    return t2_planner


def run_request(request: Request) -> dg.RunRequest:
    """Turn a request into Dagster's; a range of partitions is told by Dagster's range tags."""
    tags = {"t2/why": request.why}
    single = request.first == request.last
    if request.first is not None and request.last is not None and not single:
        tags[PARTITION_RANGE_START_TAG] = request.first
        tags[PARTITION_RANGE_END_TAG] = request.last
    return dg.RunRequest(
        run_key=request.run_key,
        asset_selection=[dg.AssetKey(key.split("/")) for key in request.tables],
        partition_key=request.first if single else None,
        tags=tags,
    )
