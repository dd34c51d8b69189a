"""The sensor that asks the planner what to build."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from types import MappingProxyType

import dagster as dg

from t2.definitions._dagster.automation import AutomationSensor, KnownAssets, tick_id
from t2.definitions._dagster.tags import PARTITION_RANGE_END_TAG, PARTITION_RANGE_START_TAG
from t2.definitions.evaluations import Evaluations
from t2.definitions.launches import Launches
from t2.definitions.limits import limits
from t2.definitions.partitions import partition_tags
from t2.definitions.queue_room import QueueRoom
from t2.ledger.backfills import BackfillState
from t2.ledger.ledger import Ledger
from t2.planning.daily import CheckRequest, daily_checks
from t2.planning.packing import packed
from t2.planning.planner import MAX_REQUESTS, Plan, plan
from t2.planning.progress import has_ended, totals
from t2.planning.state import State
from t2.planning.verdict import Request
from t2.project.model import Project

# How long a tick waits for news before it ends as skipped; the daemon's patience with a sensor is 60 s.
PATIENCE_SECONDS = 20.0
POLL_SECONDS = 0.1


class Planner:
    """Plans whenever the event log has news or time alone changed something; keeps the arrays in between.

    `tick`: the id of the sensor's tick in which it plans, None outside the daemon.
    """

    def __init__(self, project: Project, ledger: Ledger) -> None:
        self.project = project
        self.ledger = ledger
        self._launches = Launches(project, ledger)
        self._plan: Plan | None = None
        self._room: QueueRoom | None = None
        self._asked: list[Request] = []  # what was asked for of the last plan
        self._backfilled: set[str] = set()  # the tables that Dagster's own backfills build
        self.tick: int | None = None
        self._evaluations = Evaluations(project)
        self._next_daily = 0.0
        self._checked: set[str] = set()  # the daily checks that this process asked for
        self._daily = {node.key for node in project.nodes() if any(test.daily for test in node.tests)}

    def look(self, instance: dg.DagsterInstance, now: datetime) -> Plan | None:
        """Return a new plan, or None when nothing can have changed since the last one."""
        settled = (
            self._plan is not None
            and not self._asked
            and now.timestamp() < min(self._plan.next_change, self._next_daily)
        )
        if settled and not self.ledger.has_news():
            return None
        self.ledger.follow()
        if self._launches.complete(instance):
            self.ledger.follow()
        self._plan = plan(self.project, self._state(now), now, last=self._plan)
        if end_backfills(self.ledger, self._plan):
            self._plan = plan(self.project, self._state(now), now, last=self._plan)
        self._room = QueueRoom(instance) if self._plan.requests else None
        return self._plan

    def _state(self, now: datetime) -> State:
        """Return the state; runs that one of Dagster's backfills has queued take nobody's room yet.

        There may be a year of them, and the queue lets only a few start (`coordinator`).
        """
        state = self.ledger.state(self.project, now)
        self._backfilled = set()
        if not self._launches.backfilling:
            return state
        runs = [run for run in self.ledger.active_runs() if run.run_id in self._launches.backfilling]
        self._backfilled = {key for run in runs for key in run.tables}
        queued = Counter(key for run in runs if run.status == "queued" for key in run.tables)
        tables = dict(state.tables)
        for key in queued.keys() & tables.keys():
            tables[key] = replace(tables[key], active_runs=tables[key].active_runs - queued[key])
        return replace(state, tables=tables)

    def requests(self) -> Iterator[dg.RunRequest]:
        """Yield what the last plan asks for: runs that build, and the daily checks that are due.

        What the queue has no room for is asked for when a run has ended, which is news.
        """
        self._asked = []
        if self._plan is None:
            return
        for request in packed(self.project, self._plan.requests):
            if self._room is None or self._room.take(request.priority):
                self._asked.append(request)
                yield run_request(request, self._checks(request), self._limits(request))
        due, self._next_daily = daily_checks(self.project, self._plan.state, self._plan.now)
        fresh = [wanted for wanted in due if wanted.run_key not in self._checked]
        for wanted in fresh[:MAX_REQUESTS]:
            self._checked.add(wanted.run_key)
            yield check_request(wanted)
        if len(fresh) > MAX_REQUESTS:
            self._next_daily = 0.0

    def tell(self, instance: dg.DagsterInstance) -> None:
        """Store what the last plan says of each table, where that changed, for Dagster's Automation tab.

        After a tick that asks for runs it is time when the next one begins: the runs are not to wait for it.
        """
        if self._plan is not None and self.tick is not None:
            self._evaluations.store(instance, self.tick, self._plan, self._asked)

    def _limits(self, request: Request) -> dict[str, str]:
        """Return the tags by which Dagster's backfills of the same tables wait for a run.

        A run of many tables gets none for the others: it would wait for whatever one of them waits for.
        """
        keys = self._backfilled.intersection(request.tables)
        tables = {dg.AssetKey(key.split("/")): self.project.tables[key] for key in keys}
        return limits(tables, lambda key: tables[key].runs_at_once)

    def _checks(self, request: Request) -> list[dg.AssetCheckKey] | None:
        """Return the checks that are part of a run; None for all of its tables, if none is daily.

        A daily check that failed runs with each landing until it passes, so that a repair opens the gate.
        """
        if self._plan is None or self._daily.isdisjoint(request.tables):
            return None
        tables, pasts = self.project.tables, self._plan.state.tables
        return [
            dg.AssetCheckKey(dg.AssetKey(key.split("/")), test.name)
            for key in request.tables
            for test in tables[key].tests
            if not test.daily or test.name in pasts[key].failing
        ]


def end_backfills(ledger: Ledger, planned: Plan) -> bool:
    """Say of each backfill of which nothing moves any more what became of it; tell if there was one."""
    ended = False
    for backfill in ledger.planned_backfills:
        parts = backfill.progress(planned)
        if has_ended(planned, parts):
            counts = totals(parts)
            done = not counts["failed"] and not counts["left"]
            state: BackfillState = "done" if done else "failed"
            ended |= ledger.backfills.end(backfill, state, counts, planned.now.timestamp())
    return ended


def planner_sensor(
    project: Project, open_ledger: Callable[[dg.DagsterInstance], Ledger]
) -> dg.SensorDefinition:
    """Build the sensor `t2_planner`; it is running by default and looks at every table."""
    planners: dict[str, Planner] = {}

    def t2_planner(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        instance_id = str(context.instance_ref)
        if instance_id not in planners:
            planners[instance_id] = Planner(project, open_ledger(context.instance))
        planner = planners[instance_id]
        planner.tell(context.instance)
        planner.tick = tick_id(context)
        threads = bool(context.instance.get_sensor_settings().get("use_threads"))
        deadline = time.monotonic() + (PATIENCE_SECONDS if threads else 0.0)
        while True:
            decided = planner.look(context.instance, datetime.now(timezone.utc))
            requests = [] if decided is None else list(planner.requests())
            if requests:
                yield from requests
                return
            planner.tell(context.instance)
            if time.monotonic() >= deadline:
                yield dg.SkipReason("nothing to build")
                return
            time.sleep(POLL_SECONDS)

    return AutomationSensor(
        name="t2_planner",
        evaluation_fn=t2_planner,
        asset_selection=KnownAssets(
            _asset_keys(project.tables), _asset_keys(project.tables, project.sources)
        ),
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Requests every partition whose inputs are ready, and no other.",
    )


def _asset_keys(*nodes: Iterable[str]) -> frozenset[dg.AssetKey]:
    return frozenset(dg.AssetKey(key.split("/")) for keys in nodes for key in keys)


def check_request(request: CheckRequest) -> dg.RunRequest:
    """Turn a request for checks alone into Dagster's; runs that build go first."""
    asset = dg.AssetKey(request.table.split("/"))
    return dg.RunRequest(
        run_key=request.run_key,
        asset_selection=[],
        asset_check_keys=[dg.AssetCheckKey(asset, name) for name in request.tests],
        tags={**partition_tags(request.first, request.last), "t2/why": "daily", "dagster/priority": "-1"},
    )


def run_request(
    request: Request,
    checks: Sequence[dg.AssetCheckKey] | None = None,
    limits: Mapping[str, str] = MappingProxyType({}),
) -> dg.RunRequest:
    """Turn a request into Dagster's, with some of its tables' checks or, without `checks`, all.

    A range of partitions is told by Dagster's range tags.
    """
    tags = {**limits, "t2/why": request.why, "dagster/priority": str(request.priority)}
    if request.backfill:
        tags["t2/backfill"] = str(request.backfill)
    single = request.first == request.last
    if request.first is not None and request.last is not None and not single:
        tags[PARTITION_RANGE_START_TAG] = request.first
        tags[PARTITION_RANGE_END_TAG] = request.last
    return dg.RunRequest(
        run_key=request.run_key,
        asset_selection=[dg.AssetKey(key.split("/")) for key in request.tables],
        asset_check_keys=checks,
        partition_key=request.first if single else None,
        tags=tags,
    )
