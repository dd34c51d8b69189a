"""A second planner, written straight from docs/planning.md: one partition at a time, no arrays.

It shares the data classes with `t2.planning` and nothing else; `windows.py` is its calendar.
"""

from __future__ import annotations

from datetime import datetime
from functools import cached_property

from tests.planning.windows import first_wall, reads, windows

from t2.planning.state import UNKNOWN_CODE, State, TableState
from t2.project.model import Grain, Partitioning, Project, Source, Table, Upstream

Part = tuple[str, int]


def same_grid(one: Table | Source, other: Table | Source) -> bool:
    if one.partitioning is None or other.partitioning is None:
        return one.partitioning is other.partitioning
    return cut(one.partitioning) == cut(other.partitioning)


def cut(partitioning: Partitioning) -> tuple[Grain, datetime, str]:
    zone = "UTC" if partitioning.grain is Grain.HOUR else partitioning.timezone
    return partitioning.grain, first_wall(partitioning), zone


class Reference:
    def __init__(self, project: Project, state: State, now: datetime, max_requests: int = 100) -> None:
        self.project, self.state, self.now = project, state, now
        self.ready: set[Part] = set()
        self.busy: set[Part] = set()
        self.stuck: set[Part] = set()
        self.outcome: dict[Part, str] = {}
        for table in project.tables.values():
            self.plan(table)
        self.requests = self.cut(max_requests)

    # --- what is known

    def past(self, key: str) -> TableState:
        return self.state.tables[key]

    def indices(self, key: str) -> range:
        return range(len(self.past(key).landed_id))

    def exists(self, part: Part) -> bool:
        key, index = part
        return index in self.indices(key) and self.past(key).landed_id[index] > 0

    def landed(self, part: Part) -> bool:
        return self.exists(part) and not self.past(part[0]).blocked[part[1]]

    def usable(self, part: Part) -> bool:
        return self.landed(part) and part not in self.busy and part not in self.stuck

    def is_view(self, key: str) -> bool:
        return key in self.project.tables and self.project.tables[key].is_view

    def joins(self, table: Table, upstream: Upstream) -> bool:
        other = self.project.tables.get(upstream.key)
        return (
            other is not None
            and other.key != table.key
            and not table.reads_itself
            and not other.reads_itself
            and table.isolation == other.isolation == "run"
            and upstream.lookback == 0
            and upstream.through == ()
            and same_grid(table, other)
        )

    # --- inputs

    def inputs(self, table: Table, index: int, upstream: Upstream) -> list[Part]:
        """The partitions whose changes count and whose being busy or stuck is passed on."""
        node = self.project.node(upstream.key)
        if table.is_view or self.is_view(upstream.key):
            return []
        if table.partitioning is None:
            return [(upstream.key, i) for i in self.indices(upstream.key)]
        if node.partitioning is None:
            return []
        itself = upstream.key == table.key
        numbers = reads(table.partitioning, node.partitioning, upstream.lookback, index, itself)
        return [(upstream.key, i) for i in numbers]

    def is_there(self, table: Table, index: int, upstream: Upstream) -> bool:
        key, node = upstream.key, self.project.node(upstream.key)
        together = self.joins(table, upstream) and (key, index) in self.ready
        if table.is_view:
            return any(self.exists((key, i)) for i in self.indices(key)) or together
        if self.is_view(key):
            return (self.exists((key, 0)) and (key, 0) not in self.busy) or together
        if table.partitioning is not None and node.partitioning is None:
            return self.landed((key, 0))
        parts = self.inputs(table, index, upstream)
        if table.partitioning is None and node.partitioning is not None:
            bad = [p for p in parts if p in self.busy or p in self.stuck]
            blocked = [p for p in parts if self.exists(p) and not self.landed(p)]
            return any(self.landed(p) for p in parts) and not bad and not blocked
        return all(self.usable(p) for p in parts) or (together and parts == [(key, index)])

    def comes_together(self, table: Table, index: int) -> bool:
        for upstream in table.upstreams:
            if self.joins(table, upstream) and (upstream.key, index) in self.ready:
                exists = self.exists((upstream.key, index))
                if not exists if table.is_view else not self.is_view(upstream.key):
                    return True
        return False

    def all_inputs(self, table: Table, index: int) -> list[Part]:
        return [part for upstream in table.upstreams for part in self.inputs(table, index, upstream)]

    def newest(self, table: Table, index: int) -> int:
        ids = [
            int(self.past(k).landed_id[i]) for k, i in self.all_inputs(table, index) if self.exists((k, i))
        ]
        return max(ids, default=0)

    def changed(self, table: Table, index: int) -> bool:
        past = self.past(table.key)
        code, current = int(past.code[index]), self.state.codes.get(table.code_version)
        if not self.exists((table.key, index)):
            return False
        if table.follows_code and code != current:
            return True
        if past.blocked[index] and code not in (UNKNOWN_CODE, current):
            return True
        return self.newest(table, index) > past.as_of[index]

    def failure(self, table: Table, index: int) -> str | None:
        past, current = self.past(table.key), self.state.codes.get(table.code_version)
        if past.failed_id[index] == 0 or self.newest(table, index) > past.failed_as_of[index]:
            return None
        if int(past.failed_code[index]) not in (UNKNOWN_CODE, current) or self.comes_together(table, index):
            return None
        failures = int(past.failures[index])
        if past.canceled[index] or failures > table.retries.attempts:
            return "failed"
        retry_at = past.failed_at[index] + table.retries.wait_seconds * 2 ** (failures - 1)
        return "retrying" if retry_at > self.now.timestamp() else None

    # --- outcomes

    def rule(self, table: Table, index: int) -> str:
        past, part = self.past(table.key), (table.key, index)
        complete = all(self.is_there(table, index, upstream) for upstream in table.upstreams)
        together, changed = self.comes_together(table, index), self.changed(table, index)
        failure = self.failure(table, index)
        joins_a_run = together and complete and table.automation == "eager"
        if past.active[index]:
            return {1: "queued", 2: "running"}[int(past.active[index])]
        if self.landed(part) and not changed and not joins_a_run:
            return "landed"
        if table.automation == "manual":
            return "manual"
        if not complete:
            return "waiting"
        blocked = self.exists(part) and past.blocked[index] and not past.failed_id[index]
        if blocked and not changed and not together:
            return "blocked"
        return failure or "ready"

    def plan(self, table: Table) -> None:
        ordered = table.reads_itself and table.automation == "eager"
        run_ends = -1  # the last partition of the run that a self-dependent table starts
        started = False
        for index in self.indices(table.key):
            part = (table.key, index)
            outcome = self.rule(table, index)
            if ordered and index <= run_ends:
                outcome = "ready"
            elif ordered and outcome == "ready":
                if self.past(table.key).active_runs:
                    outcome = "held"
                elif not started:
                    run_ends = self.run_of_itself(table, index)
                started = True
            self.outcome[part] = outcome
            if outcome == "ready":
                self.ready.add(part)
            self.mark(table, index, outcome)

    def run_of_itself(self, table: Table, first: int) -> int:
        last = first
        others = [upstream for upstream in table.upstreams if upstream.key != table.key]
        while last + 1 in self.indices(table.key) and last + 2 - first <= table.backfill.partitions_per_run:
            if not all(self.is_there(table, last + 1, upstream) for upstream in others):
                break
            last += 1
        return last

    def mark(self, table: Table, index: int, outcome: str) -> None:
        part, inputs = (table.key, index), self.all_inputs(table, index)
        passes_on = table.automation == "eager" and not table.is_view
        if outcome in ("queued", "running", "ready", "held", "retrying"):
            self.busy.add(part)
        if passes_on and any(p in self.busy for p in inputs):
            self.busy.add(part)
        if passes_on and self.landed(part) and part not in self.busy:
            if outcome == "waiting" and self.changed(table, index):
                self.stuck.add(part)
            if outcome == "landed" and any(p in self.stuck for p in inputs):
                self.stuck.add(part)

    # --- requests

    @cached_property
    def position(self) -> dict[str, int]:
        return {key: i for i, key in enumerate(self.project.tables)}

    def start(self, part: Part) -> float:
        partitioning = self.project.tables[part[0]].partitioning
        return windows(partitioning, part[1] + 1)[part[1]][0].timestamp() if partitioning else 0

    def together(self, one: str, other: str) -> bool:
        """Whether an edge connects two tables along which they may share a run."""
        pairs = [(self.project.tables[one], other), (self.project.tables[other], one)]
        return any(u.key == k and self.joins(t, u) for t, k in pairs for u in t.upstreams)

    def sharing(self, part: Part, left: set[Part]) -> frozenset[str]:
        found = {part[0]}
        while True:
            near = {k for k, i in left if i == part[1] and any(self.together(k, other) for other in found)}
            if near <= found:
                return frozenset(found)
            found |= near

    def without_room(self, left: set[Part], room: dict[str, int]) -> set[Part]:
        """What is left out: tables without room, and what would share their run downstream."""
        out: set[Part] = set()
        for key in self.project.tables:
            table = self.project.tables[key]
            above = [u.key for u in table.upstreams if self.joins(table, u)]
            for i in [i for k, i in left if k == key]:
                if room[key] <= 0 or any((other, i) in out for other in above):
                    out.add((key, i))
        return out

    def cut(self, max_requests: int) -> list[tuple[tuple[str, ...], int, int]]:
        room = {}
        for key, table in self.project.tables.items():
            allowed = table.backfill.concurrency if table.materialized == "partitioned" else 1
            room[key] = allowed - self.past(key).active_runs
        left, taken = set(self.ready), []
        requests: list[tuple[tuple[str, ...], int, int]] = []
        while len(requests) < max_requests:
            left -= self.without_room(left, room)
            if not left:
                break
            first = min(left, key=lambda part: (self.start(part), self.position[part[0]]))
            tables = self.sharing(first, left)
            size = min(self.project.tables[key].backfill.partitions_per_run for key in tables)
            last = first[1]
            while last + 2 - first[1] <= size:
                following = (first[0], last + 1)
                if following not in left or self.sharing(following, left) != tables:
                    break
                last += 1
            ordered = tuple(sorted(tables, key=self.position.__getitem__))
            requests.append((ordered, first[1], last))
            taken += [(key, i) for key in tables for i in range(first[1], last + 1)]
            left -= set(taken)
            for key in tables:
                room[key] -= 1
        for part in self.ready - set(taken):
            table = self.project.tables[part[0]]
            up_to_date = self.landed(part) and not self.changed(table, part[1])
            self.outcome[part] = "landed" if up_to_date else "held"
        return requests
