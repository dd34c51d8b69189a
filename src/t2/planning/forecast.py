"""What will be built in the coming hours, and when tables land: the planner, asked in simulated time.

Runs take as long as they usually do, sources land as late as they usually do, nothing fails. Whatever the
planner decides, policies, pauses and backfills included, is decided by the planner itself.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timezone

import numpy as np

from t2.planning.grid import Grid
from t2.planning.planner import Plan, plan
from t2.planning.state import UNKNOWN_CODE, Active, State, TableState, Wanted
from t2.planning.verdict import Request
from t2.project.model import Project, Source, Table

# What happens within so many seconds is looked at together: the planner is asked once.
LOOK_SECONDS = 5.0


@dataclass(frozen=True)
class Habits:
    """How long things usually take, in seconds.

    `build`: one partition of a table, by its key; `start`: from the request to the first statement of a run;
    `lateness`: from the end of a source's partition to its landing, by key (what is not there never lands).
    `slots`: how many runs are executed at once.
    """

    build: Mapping[str, float] = field(default_factory=dict)
    start: float = 1.0
    lateness: Mapping[str, float] = field(default_factory=dict)
    slots: int = 4
    other: float = 1.0  # the build of a table that nothing is known of


@dataclass(frozen=True)
class Expected:
    """A request that will be made at an instant, and when its run starts and ends, in epoch seconds."""

    at: float
    request: Request
    starts: float
    ends: float


@dataclass(frozen=True)
class Forecast:
    """What is expected up to an instant.

    `requests` in the order in which their runs start. `landings`: by key of a table or source, the numbers of
    the partitions that land and when, in the order in which they do. `plan`: what is left at the end.
    """

    requests: tuple[Expected, ...]
    landings: Mapping[str, tuple[tuple[int, float], ...]]
    plan: Plan


def forecast(project: Project, state: State, now: datetime, until: datetime, habits: Habits) -> Forecast:
    """Let time pass from `now` to `until` (aware)."""
    world = _World(project, state, now, until, habits)
    world.live()
    return Forecast(
        tuple(world.requests), {key: tuple(found) for key, found in world.landings.items()}, world.plan
    )


class _World:
    """Whole arrays of every table up to the end, of which each moment sees the first partitions."""

    def __init__(
        self, project: Project, state: State, now: datetime, until: datetime, habits: Habits
    ) -> None:
        self.project, self.habits, self.now = project, habits, now.timestamp()
        self.until = until.timestamp()
        self.codes = dict(state.codes)
        self.paused, self.wanted = state.paused, state.wanted
        self.cursor = state.cursor
        self.whole = {
            node.key: _grown(state.tables[node.key], _count(node, until)) for node in project.nodes()
        }
        self.seen: dict[str, TableState] = {}
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.free = habits.slots
        self.queue: list[tuple[int, int, Request, float]] = []
        self.requests: list[Expected] = []
        self.landings: dict[str, list[tuple[int, float]]] = {}
        self.plan = plan(project, self._state(), now)
        for table in project.tables.values():
            self.codes.setdefault(table.code_version, len(self.codes))
        self._expect_sources()
        self._expect_what_runs()

    def live(self) -> None:
        """Ask the planner whenever something happened, until the time is up."""
        while True:
            self._look()
            wakes = [self.plan.next_change, self.events[0][0] if self.events else np.inf]
            if min(wakes) > self.until:
                return
            self.now = max(min(wakes), self.now)
            while self.events and self.events[0][0] <= self.now + LOOK_SECONDS:
                at, _, happen = heapq.heappop(self.events)
                self.now = max(self.now, min(at, self.until))
                happen()

    def _look(self) -> None:
        moment = datetime.fromtimestamp(self.now, timezone.utc)
        self.plan = plan(self.project, self._state(), moment, last=self.plan)
        for request in self.plan.requests:
            span = self._span(request)
            for key in request.tables:
                past = self._change(key)
                past.active_runs += 1
                past.active[span] = Active.QUEUED
            heapq.heappush(self.queue, (-request.priority, next(self.order), request, self.now))
        self._start()

    def _start(self) -> None:
        while self.free and self.queue:
            _, _, request, asked = heapq.heappop(self.queue)
            self.free -= 1
            starts = self.now + self.habits.start
            work = [(key, request.partitions * self._seconds(key)) for key in request.tables]
            self._after(starts, self._builder(work, self._span(request)))
            ends = starts + sum(seconds for _, seconds in work)
            self.requests.append(Expected(asked, request, starts, ends))

    def _builder(self, work: list[tuple[str, float]], span: slice) -> Callable[[], None]:
        """Return what begins to build the first of a run's tables; the others follow one by one."""

        def build() -> None:
            (key, seconds), *rest = work
            self._after(self.now + seconds, self._lander(key, span, rest))

        return build

    def _lander(
        self, key: str, span: slice, rest: list[tuple[str, float]], *, slot: bool = True
    ) -> Callable[[], None]:
        """Return what ends the build of a table that begins now, and begins the next or ends the run."""
        as_of = self.cursor

        def land() -> None:
            self._land(key, span, as_of)
            past = self._change(key)
            past.active_runs = max(past.active_runs - 1, 0)
            if rest:
                self._builder(rest, span)()
            elif slot:
                self.free += 1
                self._start()

        return land

    def _land(self, key: str, span: slice, as_of: int) -> None:
        past = self._change(key)
        node = self.project.tables.get(key)
        for index in range(span.start, span.stop):
            past.as_of[index] = as_of
            self.cursor += 1
            past.landed_id[index] = self.cursor
            self.landings.setdefault(key, []).append((index, self.now))
            if node is not None and node.reads_itself:
                as_of = self.cursor  # the next one reads this one
        past.landed_at[span] = self.now
        past.blocked[span] = False
        past.active[span] = Active.NO
        past.failed_id[span] = past.failures[span] = 0
        past.canceled[span] = False
        past.code[span] = self.codes[node.code_version] if node else UNKNOWN_CODE
        for failed in past.barred.values():
            failed[span] = False

    def _expect_sources(self) -> None:
        for key, source in self.project.sources.items():
            late = self.habits.lateness.get(key)
            if source.partitioning is None or late is None:
                continue
            past = self.whole[key]
            ends = Grid.of(source.partitioning).boundaries(past.count)[1:] + late
            # What is overdue is expected at once, but for gaps that newer data has left behind.
            newest = int(np.flatnonzero(past.landed_id).max(initial=-1))
            for index in range(newest + 1, past.count):
                span = slice(index, index + 1)
                self._after(max(float(ends[index]), self.now), self._arrival(key, span))

    def _arrival(self, key: str, span: slice) -> Callable[[], None]:
        return lambda: self._land(key, span, self.cursor)

    def _expect_what_runs(self) -> None:
        """Let what runs or is queued now end after its usual time."""
        for key in self.project.tables:
            past = self.whole[key]
            active = np.flatnonzero(past.active)
            if not len(active):
                past.active_runs = 0
                continue
            ends = self.now + self.habits.start + len(active) * self._seconds(key)
            stretches = np.split(active, np.flatnonzero(np.diff(active) != 1) + 1)
            past.active_runs = len(stretches)
            for stretch in stretches:
                span = slice(int(stretch[0]), int(stretch[-1]) + 1)
                self._after(ends, self._lander(key, span, [], slot=False))

    def _after(self, at: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self.events, (at, next(self.order), happen))

    def _seconds(self, key: str) -> float:
        return self.habits.build.get(key, self.habits.other)

    def _span(self, request: Request) -> slice:
        partitioning = self.project.tables[request.tables[0]].partitioning
        first = Grid.of(partitioning).index(request.first) if partitioning and request.first else 0
        return slice(first, first + request.partitions)

    def _change(self, key: str) -> TableState:
        self.seen.pop(key, None)
        return self.whole[key]

    def _state(self) -> State:
        """Return what there is at this moment; tables of which nothing changed are the same objects."""
        moment = datetime.fromtimestamp(self.now, timezone.utc)
        for node in self.project.nodes():
            count = _count(node, moment)
            known = self.seen.get(node.key)
            if known is None or known.count != count:
                self.seen[node.key] = _first(self.whole[node.key], count)
        wanted = {key: _wanted(one, self.seen[key].count) for key, one in self.wanted.items()}
        return State(dict(self.seen), self.codes, self.cursor, wanted=wanted, paused=self.paused)


def _count(node: Table | Source, now: datetime) -> int:
    return Grid.of(node.partitioning).count(now) if node.partitioning else 1


def _grown(past: TableState, count: int) -> TableState:
    """Return a copy with room for more partitions, of which nothing is known."""
    grown = TableState.empty(max(count, past.count))
    for one in fields(TableState):
        value = getattr(past, one.name)
        if isinstance(value, np.ndarray):
            getattr(grown, one.name)[: past.count] = value
        elif one.name != "barred":
            setattr(grown, one.name, value)
    for key, failed in past.barred.items():
        grown.barred[key] = np.append(failed, np.zeros(grown.count - past.count, np.bool_))
    return grown


def _first(whole: TableState, count: int) -> TableState:
    arrays = {
        one.name: getattr(whole, one.name)[:count].copy()
        for one in fields(TableState)
        if isinstance(getattr(whole, one.name), np.ndarray)
    }
    return replace(
        whole, **arrays, barred={key: failed[:count].copy() for key, failed in whole.barred.items()}
    )


def _wanted(one: Wanted, count: int) -> Wanted:
    none = np.zeros(max(count - len(one.backfill), 0), np.int64)
    return Wanted(np.append(one.backfill, none)[:count], np.append(one.since, none)[:count])
