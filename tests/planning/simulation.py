"""A world for the planner: sources that land, runs that take time and fail, a ledger kept by hand.

Time is simulated: a heap of (when, what). After every event the planner is asked again, the
invariants of docs/planning.md are checked, and what it requests is run.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np
from tests.planning.projects import count
from tests.planning.windows import reads

from t2.planning.grid import Grid
from t2.planning.planner import Plan, plan
from t2.planning.state import Active, State, TableState
from t2.planning.verdict import Outcome, Request
from t2.project.model import Project, Source, Table

Part = tuple[str, int]
ARRAYS = [name for name, value in vars(TableState.empty(0)).items() if isinstance(value, np.ndarray)]


@dataclass
class Luck:
    """How often attempts fail (never more than twice in a row) and blocking checks do; runs take minutes.

    `named`: how often checks fail that block tables by name; `names` are those tables, by the tested one.
    """

    fails: float = 0.0
    dirty: float = 0.0
    minutes: float = 4.0
    named: float = 0.0
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class World:
    def __init__(self, project: Project, now: datetime, horizon: datetime, seed: int, luck: Luck) -> None:
        self.project, self.now, self.luck = project, now, luck
        self.dice = random.Random(seed)
        self.whole = {node.key: TableState.empty(count(node, horizon)) for node in project.nodes()}
        self.cursor = 0
        self.events: list[tuple[datetime, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.run_keys: set[str] = set()
        self.asked: dict[Part, object] = {}
        self.built: Counter[Part] = Counter()
        self.saw: dict[Part, dict[Part, int]] = {}
        self.in_a_row: Counter[Part] = Counter()
        self.alarm: datetime | None = None
        self.running = 0
        self.plan: Plan

    # --- time

    def at(self, when: datetime, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (when, next(self.order), what))

    def after(self, minutes: float, what: Callable[[], None]) -> None:
        self.at(self.now + timedelta(minutes=minutes), what)

    def live(self, until: datetime) -> None:
        """Let events happen until a moment; whoever watches the clock only wakes at `next_change`."""
        self.tick()
        while self.events and self.events[0][0] <= until:
            self.now, _, what = heapq.heappop(self.events)
            what()
            self.tick()
        self.now = until
        self.tick()

    def tick(self) -> None:
        self.plan = plan(self.project, self.state(), self.now)
        for request in self.plan.requests:
            self.check(request)
        for request in self.plan.requests:
            first = self.number(request.tables[0], request.first)
            self.launch(request.tables, range(first, first + request.partitions))
        if np.isfinite(self.plan.next_change):
            due = datetime.fromtimestamp(self.plan.next_change, self.now.tzinfo)
            if due != self.alarm and due > self.now:
                self.alarm = due
                self.at(due, lambda: None)

    def state(self) -> State:
        tables = {}
        for node in self.project.nodes():
            past, length = self.whole[node.key], count(node, self.now)
            barred = {name: failed[:length] for name, failed in past.barred.items()}
            arrays = {name: getattr(past, name)[:length] for name in ARRAYS}
            tables[node.key] = replace(past, **arrays, barred=barred)
        return State(tables, {"v1": 0}, self.cursor)

    def number(self, key: str, partition: str | None) -> int:
        partitioning = self.project.node(key).partitioning
        return Grid.of(partitioning).index(partition) if partitioning and partition else 0

    # --- what happens

    def land(self, key: str, index: int, *, dirty: bool = False, bars: tuple[str, ...] = ()) -> None:
        past = self.whole[key]
        for name in {*past.barred, *bars}:
            past.barred.setdefault(name, np.zeros(len(past.landed_id), np.bool_))[index] = name in bars
        self.cursor += 1
        past.landed_id[index] = past.as_of[index] = self.cursor
        past.landed_at[index] = self.now.timestamp()
        past.blocked[index] = dirty
        past.code[index] = 0
        past.failed_id[index] = past.failures[index] = 0

    def launch(self, tables: tuple[str, ...], span: range) -> None:
        self.running += 1
        for key in tables:
            self.whole[key].active_runs += 1
            self.whole[key].active[span.start : span.stop] = Active.QUEUED
        self.after(self.dice.random(), lambda: self.start(list(tables), tables, span, set()))

    def start(self, left: list[str], tables: tuple[str, ...], span: range, failed: set[str]) -> None:
        """Build the next table of a run; a table below one that failed is skipped."""
        while left and failed & {upstream.key for upstream in self.project.tables[left[0]].upstreams}:
            failed.add(left[0])
            self.whole[left.pop(0)].active[span.start : span.stop] = Active.NO
        if not left:
            self.running -= 1
            for key in tables:
                self.whole[key].active_runs -= 1
            return
        key = left.pop(0)
        self.whole[key].active[span.start : span.stop] = Active.RUNNING
        as_of = self.cursor
        versions = {(key, i): self.versions(key, i) for i in span}

        def end() -> None:
            if not self.end(key, span, as_of, versions):
                failed.add(key)
            self.start(left, tables, span, failed)

        self.after(self.dice.expovariate(1 / self.luck.minutes), end)

    def end(self, key: str, span: range, as_of: int, versions: dict[Part, dict[Part, int]]) -> bool:
        """Land a table's partitions, in order, up to the first that fails."""
        past, fine = self.whole[key], True
        past.active[span.start : span.stop] = Active.NO
        for index in span:
            part = (key, index)
            if self.bars(key, index):
                fine = False  # left out; the step gives no output
                continue
            if not fine or (self.in_a_row[part] < 2 and self.dice.random() < self.luck.fails):
                fine = False
                self.in_a_row[part] += 1
                self.cursor += 1
                past.failed_id[index], past.failed_as_of[index] = self.cursor, as_of
                past.failed_at[index], past.failed_code[index] = self.now.timestamp(), 0
                past.failures[index] += 1
                continue
            self.in_a_row[part] = 0
            self.built[part] += 1
            bars = self.luck.names.get(key, ()) if self.dice.random() < self.luck.named else ()
            self.land(key, index, dirty=self.dice.random() < self.luck.dirty, bars=bars)
            if bars:
                self.after(120, lambda index=index, built=self.cursor: self.check_again(key, index, built))
            past.as_of[index] = as_of
            own = {p: v for p, v in self.versions(key, index).items() if p[0] == key}
            self.saw[part] = {**versions[part], **own}
            if self.project.tables[key].reads_itself:
                past.as_of[index] = self.cursor - 1
            if past.blocked[index]:
                fine = False
                self.after(90, lambda index=index: self.person(key, index))
        return fine

    def person(self, key: str, index: int) -> None:
        """Build a partition by hand, if nothing else did meanwhile."""
        if not self.whole[key].active[index] and not self.whole[key].landed[index]:
            self.launch((key,), range(index, index + 1))

    def check_again(self, key: str, index: int, built: int) -> None:
        """Let the checks that block by name pass, if the partition was not built again meanwhile."""
        if self.whole[key].landed_id[index] == built:
            for failed in self.whole[key].barred.values():
                failed[index] = False

    # --- what one partition reads

    def inputs(self, key: str, index: int) -> list[Part]:
        """The partitions whose changes count."""
        table, found = self.project.tables[key], []
        for upstream in table.upstreams:
            node = self.project.node(upstream.key)
            if table.is_view or (isinstance(node, Table) and node.is_view):
                continue
            if table.partitioning is None:
                found += [(upstream.key, i) for i in range(count(node, self.now))]
            elif node.partitioning is not None:
                itself = upstream.key == key
                numbers = reads(table.partitioning, node.partitioning, upstream.lookback, index, itself)
                found += [(upstream.key, i) for i in numbers]
        return found

    def versions(self, key: str, index: int) -> dict[Part, int]:
        return {part: int(self.whole[part[0]].landed_id[part[1]]) for part in self.inputs(key, index)}

    def eager(self) -> list[Table]:
        return [table for table in self.project.tables.values() if table.automation == "eager"]

    def bars(self, key: str, index: int) -> set[Part]:
        """Where, however far up, a check failed that names a table, for one of its partitions."""
        if not any(failed.any() for past in self.whole.values() for failed in past.barred.values()):
            return set()
        found: set[Part] = set()
        todo = [(key, index)]
        while todo:
            part = todo.pop()
            inputs = [] if part[0] in self.project.sources else self.inputs(*part)
            fresh = [p for p in inputs if p not in found and self.whole[p[0]].landed_id[p[1]]]
            found.update(fresh)
            todo.extend(fresh)
        failed = {name: past.barred[key] for name, past in self.whole.items() if key in past.barred}
        return {part for part in found if part[0] in failed and failed[part[0]][part[1]]}

    def held_back(self) -> set[Part]:
        """Every partition that a missing or blocked one holds back, however far up it is."""
        found: set[Part] = set()
        for node in self.project.nodes():
            past = self.whole[node.key]
            for index in range(count(node, self.now)):
                inputs = [] if isinstance(node, Source) or node.is_view else self.inputs(node.key, index)
                if node.partitioning is None:  # reads whatever is there
                    inputs = [p for p in inputs if self.whole[p[0]].landed_id[p[1]]]
                by_itself = isinstance(node, Table) and node.automation == "eager"
                dirty = bool(past.blocked[index])
                missing = not past.landed[index] and (dirty or not by_itself)
                missing = missing or (by_itself and bool(self.bars(node.key, index)))
                if missing or (by_itself and any(part in found for part in inputs)):
                    found.add((node.key, index))
        return found

    # --- invariants

    def check(self, request: Request) -> None:
        assert request.run_key not in self.run_keys
        self.run_keys.add(request.run_key)
        first = self.number(request.tables[0], request.first)
        parts = [(key, i) for key in request.tables for i in range(first, first + request.partitions)]
        blocked = {
            (key, int(i)) for key, past in self.whole.items() for i in np.flatnonzero(past.blocked).tolist()
        }
        for key, index in parts:
            self.check_not_early(key, index, parts)
            self.check_not_twice(key, index, parts)
            assert self.bars(key, index) <= set(parts), f"{key} {index} is barred"
            if blocked:
                assert not blocked & self.above(key, index) - set(parts)

    def check_not_early(self, key: str, index: int, parts: list[Part]) -> None:
        table = self.project.tables[key]
        assert index < count(table, self.now)
        for other, i in self.inputs(key, index):
            past = self.whole[other]
            if table.partitioning is None and not past.landed_id[i]:
                continue
            there = i < count(self.project.node(other), self.now) and past.landed[i] and not past.active[i]
            assert there or (other, i) in parts, f"{key} {index} is early: {other} {i}"

    def check_not_twice(self, key: str, index: int, parts: list[Part]) -> None:
        assert not self.whole[key].active[index]
        joined = {part for part in self.inputs(key, index) if part in parts}
        why = (
            self.versions(key, index),
            {part: self.asked.get(part) for part in joined},
            int(self.whole[key].failed_id[index]),
        )
        assert self.asked.get((key, index)) != why, f"{key} {index} is requested twice"
        self.asked[key, index] = why

    def above(self, key: str, index: int) -> set[Part]:
        """Everything that a partition reads, directly or not, except through manual tables."""
        found: set[Part] = set()
        todo = [(key, index)]
        while todo:
            part = todo.pop()
            table = self.project.tables.get(part[0])
            if table is None or (table.automation == "manual" and self.whole[part[0]].landed[part[1]]):
                continue
            fresh = [p for p in self.inputs(*part) if p not in found]
            if table.partitioning is None:
                fresh = [p for p in fresh if self.whole[p[0]].landed_id[p[1]]]
            found.update(fresh)
            todo.extend(fresh)
        return found

    def check_up_to_date(self) -> None:
        """When nothing runs, all that nothing holds back has landed and saw the newest of all it reads."""
        assert not self.running
        assert self.plan.requests == ()
        held_back = self.held_back()
        for table in self.eager():
            for index in range(count(table, self.now)):
                if (table.key, index) in held_back:
                    continue
                assert self.whole[table.key].landed[index], f"{table.key} {index} is lost"
                assert Outcome(int(self.plan.outcomes[table.key][index])) is Outcome.LANDED
                if table.upstreams and not table.is_view:
                    seen = {p: v for p, v in self.saw[table.key, index].items() if v}
                    now = {p: v for p, v in self.versions(table.key, index).items() if v}
                    assert seen == now, f"{table.key} {index} is stale"
