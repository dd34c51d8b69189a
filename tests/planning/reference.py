"""A second planner, written straight from docs/planning.md: one partition at a time, no arrays.

It shares the data classes with `t2.planning` and nothing else; `windows.py` is its calendar.
"""

from __future__ import annotations

from datetime import datetime
from functools import cached_property

from tests.planning.windows import first_wall, instant, reads, ticks_before, windows

from t2.planning.state import UNKNOWN_CODE, State, TableState
from t2.project.model import Cron, Grain, Partitioning, Project, Source, Table, Upstream

Part = tuple[str, int]


def same_grid(one: Table | Source, other: Table | Source) -> bool:
    if one.partitioning is None or other.partitioning is None:
        return one.partitioning is other.partitioning
    return cut(one.partitioning) == cut(other.partitioning)


def cut(partitioning: Partitioning) -> tuple[Grain, datetime, str, bool]:
    zone = "UTC" if partitioning.grain is Grain.HOUR else partitioning.timezone
    return partitioning.grain, first_wall(partitioning), zone, partitioning.open


class Reference:
    def __init__(self, project: Project, state: State, now: datetime, max_requests: int = 100) -> None:
        self.project, self.state, self.now = project, state, now
        self.ready: set[Part] = set()
        self.busy: set[Part] = set()
        self.stuck: set[Part] = set()
        self.outcome: dict[Part, str] = {}
        self.known: dict[Part, set[str]] = {}
        # Backfills: who looks now, and what those outside take for landed.
        self.inside = False
        self.aside: set[Part] = set()
        self.own_old: set[Part] = set()
        self.stuck_outside: set[Part] = set()
        self.backlog: dict[Part, int] = {}
        self.coming: set[Part] = set()
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

    def is_aside(self, part: Part) -> bool:
        return not self.inside and part in self.aside

    def is_busy(self, part: Part) -> bool:
        return part in self.busy and not self.is_aside(part)

    def is_stuck(self, part: Part) -> bool:
        if not self.inside and part in self.stuck_outside:
            return True
        return part in self.stuck and not self.is_aside(part)

    def usable(self, part: Part) -> bool:
        if self.inside and self.owed(part) and self.outcome.get(part) in ("failed", "paused"):
            return False
        return self.landed(part) and not self.is_busy(part) and not self.is_stuck(part)

    def comes_in_this_tick(self, part: Part) -> bool:
        return part in self.ready and (self.inside or not self.backlog.get(part))

    # --- policies

    def is_paused(self, table: Table) -> bool:
        pause = self.state.paused.get(table.key)
        return pause is not None and self.now.timestamp() < pause.until

    def last_tick(self, table: Table) -> float:
        assert isinstance(table.automation, Cron)
        return ticks_before(table.automation, self.now).timestamp()

    def allowed(self, table: Table, index: int) -> bool:
        if self.is_paused(table) or table.automation == "manual":
            return False
        if table.automation == "eager":
            return True
        if self.exists((table.key, index)):
            return bool(self.past(table.key).landed_at[index] < self.last_tick(table))
        if table.partitioning is None:
            return True
        begin, end = windows(table.partitioning, index + 1)[index]
        return (begin if table.partitioning.open else end).timestamp() <= self.last_tick(table)

    def acts(self, table: Table, index: int) -> bool:
        """Whether it is built when it is ready."""
        owed = self.owed((table.key, index)) and not self.is_paused(table)
        return self.allowed(table, index) or owed

    def any_allowed(self, table: Table) -> bool:
        return any(self.allowed(table, i) for i in self.indices(table.key))

    # --- backfills

    def wanted(self, part: Part) -> int:
        wanted = self.state.wanted.get(part[0])
        return int(wanted.backfill[part[1]]) if wanted and part[1] in self.indices(part[0]) else 0

    def owed(self, part: Part) -> bool:
        wanted = self.state.wanted.get(part[0])
        past = self.past(part[0])
        return bool(self.wanted(part) and wanted and wanted.since[part[1]] > past.as_of[part[1]])

    def look_from_outside(self, table: Table) -> None:
        """Find what those outside take for landed, and what only backfills want."""
        self.inside = False
        parts = [(table.key, i) for i in self.indices(table.key) if self.wanted((table.key, i))]
        self.aside |= {part for part in parts if self.landed(part)}
        self.own_old = set(self.aside)
        up_to_date = set()
        for part in parts:
            changed = self.changed(table, part[1])
            others = [p for p in self.waits(table, part[1]) if p[0] != table.key]
            held = any(self.is_busy(p) or self.is_stuck(p) for p in others)
            allowed = self.allowed(table, part[1])
            if self.landed(part) and (not allowed or not (changed or held)):
                up_to_date.add(part)
            if self.owed(part) and not (changed and allowed):
                self.backlog[part] = self.wanted(part)
        self.aside -= {part for part in parts if part not in up_to_date}
        self.own_old = set(self.aside)

    def wait_behind(self, table: Table, part: Part, begun: bool) -> None:
        """Behind a partition that waits for its own reasons, those outside wait, too."""
        self.inside = False
        earlier = [p for p in self.all_inputs(table, part[1]) if p[0] == table.key]
        stuck = not begun and any(self.is_stuck(p) for p in earlier)
        if part in self.aside and (begun or stuck):
            self.aside.discard(part)
            self.stuck_outside |= {part} if stuck else set()

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
            and (upstream.lookback, upstream.back_seconds, upstream.shift_seconds) == (0, 0, 0)
            and upstream.window == "overlap"
            and upstream.through == ()
            and same_grid(table, other)
        )

    # --- inputs

    def follows(self, table: Table, upstream: Upstream) -> bool:
        """Whether changes of what an edge reads count."""
        if upstream.on_update is not None:
            return upstream.on_update == "rerun"
        if table.partitioning is None:
            return True
        return upstream.window == "overlap" and self.project.node(upstream.key).partitioning is not None

    def parts(self, table: Table, index: int, upstream: Upstream) -> list[Part]:
        """What an edge reads, there or not."""
        key, node = upstream.key, self.project.node(upstream.key)
        if table.is_view or self.is_view(key):
            return []
        if node.partitioning is None:
            return [(key, 0)]
        if upstream.window == "latest":
            return self.latest(table, index, key, node.partitioning)
        if table.partitioning is None or upstream.window == "all":
            return [(key, i) for i in self.indices(key)]
        back, shift, itself = upstream.back_seconds, upstream.shift_seconds, key == table.key
        cut, other = table.partitioning, node.partitioning
        return [(key, i) for i in reads(cut, other, upstream.lookback, index, itself, back, shift)]

    def latest(self, table: Table, index: int, key: str, partitioning: Partitioning) -> list[Part]:
        over = [(key, i) for i in self.indices(key)]
        if table.partitioning is not None:
            end = windows(table.partitioning, index + 1)[index][1]
            over = [p for p in over if windows(partitioning, p[1] + 1)[p[1]][1] <= end]
        return [p for p in over if self.landed(p)][-1:] or over[-1:]

    def inputs(self, table: Table, index: int, upstream: Upstream) -> list[Part]:
        """The partitions whose changes count."""
        return self.parts(table, index, upstream) if self.follows(table, upstream) else []

    def so_far(self, table: Table, index: int, parts: list[Part]) -> list[Part]:
        """What there is of the window of a partition that is not over yet, or the first of it."""
        assert table.partitioning is not None
        if windows(table.partitioning, index + 1)[index][1] <= self.now:
            return parts
        return [p for p in parts if p[1] in self.indices(p[0])] or parts[:1]

    def overdue(self, table: Table, index: int, upstream: Upstream) -> bool:
        """Whether what was never built is done without."""
        whole = table.partitioning is None and upstream.window == "overlap"
        if upstream.required or whole or upstream.window == "all":
            return False
        there_is_some = any(self.exists((upstream.key, i)) for i in self.indices(upstream.key))
        if upstream.key in self.project.tables and not there_is_some:
            return False
        if table.partitioning is None:
            return True
        end = windows(table.partitioning, index + 1)[index][1]
        return end.timestamp() + upstream.wait_seconds <= self.now.timestamp()

    def there(self, part: Part, *, counts: bool) -> bool:
        return self.usable(part) if counts else self.landed(part)

    def newest_due(self, table: Table, key: str) -> list[Part]:
        """The newest partition that was over at the reader's tick."""
        partitioning = self.project.node(key).partitioning
        if not isinstance(table.automation, Cron) or partitioning is None:
            return []
        tick = self.last_tick(table)
        over = [(key, i) for i in self.indices(key)]
        return [p for p in over if windows(partitioning, p[1] + 1)[p[1]][1].timestamp() <= tick][-1:]

    def is_there(self, table: Table, index: int, upstream: Upstream) -> bool:
        key, node = upstream.key, self.project.node(upstream.key)
        together = self.joins(table, upstream) and self.comes_in_this_tick((key, index))
        counts = self.follows(table, upstream)
        if table.is_view:
            return any(self.exists((key, i)) for i in self.indices(key)) or together
        if self.is_view(key):
            return (self.exists((key, 0)) and not self.is_busy((key, 0))) or together
        parts = self.parts(table, index, upstream)
        if table.partitioning is not None and node.partitioning is not None and upstream.window == "overlap":
            parts = self.so_far(table, index, parts)
        plain = table.partitioning is None and upstream.window == "overlap"
        if node.partitioning is not None and (upstream.window == "all" or plain):
            bad = [p for p in parts if counts and (self.is_busy(p) or self.is_stuck(p))]
            blocked = [p for p in parts if self.exists(p) and not self.landed(p)]
            due = all(self.landed(p) for p in self.newest_due(table, key))
            return any(self.landed(p) for p in parts) and not bad and not blocked and due
        overdue = self.overdue(table, index, upstream)
        fine = all(self.there(p, counts=counts) or (overdue and not self.exists(p)) for p in parts)
        return fine or (together and parts == [(key, index)])

    def comes_together(self, table: Table, index: int) -> bool:
        for upstream in table.upstreams:
            if self.joins(table, upstream) and self.comes_in_this_tick((upstream.key, index)):
                exists = self.exists((upstream.key, index))
                counts = not self.is_view(upstream.key) and self.follows(table, upstream)
                if not exists if table.is_view else counts:
                    return True
        return False

    def all_inputs(self, table: Table, index: int) -> list[Part]:
        return [part for upstream in table.upstreams for part in self.inputs(table, index, upstream)]

    def waits(self, table: Table, index: int) -> list[Part]:
        """The partitions whose being busy or stuck is passed on."""
        return [
            part
            for upstream in table.upstreams
            if not self.overdue(table, index, upstream)
            for part in self.inputs(table, index, upstream)
        ]

    def is_late(self, table: Table, part: Part) -> bool:
        """Whether a landing came too late to change the reader."""
        partitioning, late = self.project.node(part[0]).partitioning, table.late_data
        if partitioning is None:
            return False
        if late.action == "ignore":
            return True
        if late.within_seconds is None:
            return False
        end = windows(partitioning, part[1] + 1)[part[1]][1].timestamp()
        return bool(self.past(part[0]).landed_at[part[1]] > end + late.within_seconds)

    def newest(self, table: Table, index: int) -> int:
        own = {part for part in self.own_old if part[0] == table.key}
        old = own | {part for part in self.aside if part[0] != table.key}
        ids = [
            1 if not self.inside and (k, i) in old else int(self.past(k).landed_id[i])
            for k, i in self.all_inputs(table, index)
            if self.exists((k, i)) and not self.is_late(table, (k, i))
        ]
        if self.inside:
            ids.append(int(self.state.wanted[table.key].since[index]))
        return max(ids, default=0)

    def changed(self, table: Table, index: int) -> bool:
        past = self.past(table.key)
        code, current = int(past.code[index]), self.state.codes.get(table.code_version)
        if not self.exists((table.key, index)):
            return False
        if self.inside and self.owed((table.key, index)):
            return True
        if table.follows_code and code != current:
            return True
        if self.built_early(table, index):
            return True
        whole = table.partitioning is None and not table.is_view
        if whole and isinstance(table.automation, Cron) and past.landed_at[index] < self.last_tick(table):
            return True
        shut = past.blocked[index] or any(failed[index] for failed in past.barred.values())
        if shut and code not in (UNKNOWN_CODE, current):
            return True
        return self.newest(table, index) > past.as_of[index]

    def built_early(self, table: Table, index: int) -> bool:
        if table.partitioning is None or not table.partitioning.open:
            return False
        end = windows(table.partitioning, index + 1)[index][1]
        return bool(self.past(table.key).landed_at[index] < end.timestamp()) and end <= self.now

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

    # --- failed checks that block named tables

    def closed(self, table: Table, index: int) -> bool:
        """Whether a failed check bars the table from something that this partition reads."""
        if not any(past.barred for past in self.state.tables.values()):
            return False
        return any(
            table.key in (self.carried(part) if part[0] == table.key else self.bars(part))
            for upstream in table.upstreams
            for part in self.reads(table, index, upstream)
        )

    def reads(self, table: Table, index: int, upstream: Upstream) -> list[Part]:
        return [p for p in self.parts(table, index, upstream) if p[1] in self.indices(p[0])]

    def bars(self, part: Part) -> set[str]:
        """The tables that may not be built from a partition that is there, or will be."""
        return self.carried(part) if self.exists(part) or part in self.ready else set()

    def carried(self, part: Part) -> set[str]:
        if part not in self.known:
            self.known[part] = self.carry(part)
        return self.known[part]

    def carry(self, part: Part) -> set[str]:
        key, index = part
        table = self.project.tables.get(key)
        found: set[str] = set()
        # Who reads it now does so in the run that checks it anew.
        anew = part in self.ready and not (table and table.reads_itself) and not self.backlog.get(part)
        if self.exists(part) and not anew:
            found |= {name for name, failed in self.past(key).barred.items() if failed[index]}
        for upstream in table.upstreams if table else ():
            for other in self.reads(table, index, upstream):
                found |= self.carried(other) if other[0] == key else self.bars(other)
        return found

    # --- outcomes

    def rule(self, table: Table, index: int) -> str:
        past, part = self.past(table.key), (table.key, index)
        complete = all(self.is_there(table, index, upstream) for upstream in table.upstreams)
        complete = complete and not self.closed(table, index)
        together, changed = self.comes_together(table, index), self.changed(table, index)
        failure = self.failure(table, index)
        by_itself = self.acts(table, index)
        joins_a_run = together and complete and by_itself
        if past.active[index]:
            return {1: "queued", 2: "running"}[int(past.active[index])]
        if self.landed(part) and not changed and not joins_a_run:
            return "landed"
        if not by_itself:
            if self.is_paused(table):
                return "paused"
            return "manual" if table.automation == "manual" else "scheduled"
        if not complete:
            return "waiting"
        blocked = self.exists(part) and past.blocked[index] and not past.failed_id[index]
        if blocked and not changed and not together:
            return "blocked"
        return failure or "ready"

    def plan(self, table: Table) -> None:
        if table.key in self.state.wanted:
            self.look_from_outside(table)
        run_ends = {True: -1, False: -1}  # the last partition of the run that a self-dependent table starts
        begun = {True: False, False: False}
        for index in self.indices(table.key):
            part = (table.key, index)
            if table.reads_itself and self.any_allowed(table):
                self.wait_behind(table, part, begun[False])
            self.inside = inside = bool(self.wanted(part))
            outcome = self.rule(table, index)
            others = [p for p in self.waits(table, index) if p[0] != table.key]
            if outcome == "waiting" and self.backlog.get(part) and any(self.is_busy(p) for p in others):
                self.coming.add(part)
            if self.in_order(table, part):
                if index <= run_ends[inside]:
                    outcome = "ready"
                elif begun[inside] and outcome in ("blocked", "failed", "retrying", "ready"):
                    outcome = "waiting"
                elif outcome == "ready":
                    if self.past(table.key).active_runs:
                        outcome = "held"
                    else:
                        run_ends[inside] = self.run_of_itself(table, index)
            self.outcome[part] = outcome
            if outcome == "ready":
                self.ready.add(part)
            self.mark(table, index, outcome, follows=table.reads_itself and begun[inside])
            if part in self.busy:
                begun[True] = begun[True] or inside or self.any_allowed(table)
                begun[False] = begun[False] or part not in self.aside
        self.one_run_of_both(table)

    def in_order(self, table: Table, part: Part) -> bool:
        if not table.reads_itself:
            return False
        return self.any_allowed(table) or (self.wanted(part) > 0 and not self.is_paused(table))

    def one_run_of_both(self, table: Table) -> None:
        """What is outside of backfills goes first."""
        ready = {part for part in self.ready if part[0] == table.key}
        if table.reads_itself and any(not self.wanted(part) for part in ready):
            for part in ready:
                if self.wanted(part):
                    self.ready.discard(part)
                    self.outcome[part] = "held"

    def run_of_itself(self, table: Table, first: int) -> int:
        last = first
        others = [upstream for upstream in table.upstreams if upstream.key != table.key]
        while last + 1 in self.indices(table.key) and last + 2 - first <= table.backfill.partitions_per_run:
            if bool(self.wanted((table.key, last + 1))) is not self.inside:
                break
            if self.backlog.get((table.key, last + 1), 0) != self.backlog.get((table.key, first), 0):
                break
            if not all(self.is_there(table, last + 1, upstream) for upstream in others):
                break
            if self.closed(table, last + 1):
                break
            last += 1
        return last

    def mark(self, table: Table, index: int, outcome: str, follows: bool) -> None:
        part, inputs = (table.key, index), self.waits(table, index)
        passes_on = self.acts(table, index) and not table.is_view
        if outcome in ("queued", "running", "ready", "held", "retrying"):
            self.busy.add(part)
        if passes_on and (follows or any(self.is_busy(p) for p in inputs)):
            self.busy.add(part)
        if passes_on and self.landed(part) and part not in self.busy:
            if outcome == "waiting" and self.changed(table, index):
                self.stuck.add(part)
            if outcome == "landed" and any(self.is_stuck(p) for p in inputs):
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
            alone = table.reads_itself or table.materialized != "partitioned"
            allowed = 1 if alone else table.backfill.concurrency
            room[key] = allowed - self.past(key).active_runs
        self.all_groups = self.groups()
        left, taken = set(self.ready), set()
        left -= self.parted(left)
        requests: list[tuple[tuple[str, ...], int, int]] = []
        while len(requests) < max_requests:
            left -= self.without_room(left, room)
            free = {part for part in left if not self.backlog.get(part)}
            found = self.run_at_once(free) if free else self.run_of_a_backfill(left)
            if found is None:
                break
            tables, first, last = found
            requests.append((tuple(sorted(tables, key=self.position.__getitem__)), first, last))
            run = {(key, i) for key in tables for i in range(first, last + 1)}
            taken |= run
            left -= run
            left -= self.below(run, left)
            for key in tables:
                room[key] -= 1
        for part in self.ready - taken:
            table = self.project.tables[part[0]]
            self.inside = bool(self.wanted(part))
            up_to_date = self.landed(part) and not self.changed(table, part[1])
            self.outcome[part] = "landed" if up_to_date else "held"
        return requests

    def size(self, key: str) -> int:
        return self.project.tables[key].backfill.partitions_per_run

    def needs(self, part: Part, left: set[Part]) -> list[Part]:
        """What else has to be in a run with a partition."""
        table = self.project.tables[part[0]]
        return [
            (u.key, part[1]) for u in table.upstreams if self.joins(table, u) and (u.key, part[1]) in left
        ]

    def below(self, lost: set[Part], left: set[Part]) -> set[Part]:
        """What needs something that is lost, in dependency order."""
        found = set(lost)
        for key in self.project.tables:
            for part in [part for part in left if part[0] == key]:
                if found & set(self.needs(part, left | lost)):
                    found.add(part)
        return found - lost

    def parted(self, left: set[Part]) -> set[Part]:
        """What needs a table in its run that is of another backfill, or in a backfill of another size."""
        lost: set[Part] = set()
        for key in self.project.tables:
            for part in [part for part in left if part[0] == key]:
                for other in self.needs(part, left):
                    own, others = self.backlog.get(part, 0), self.backlog.get(other, 0)
                    unlike = bool(own) and self.size(part[0]) != self.size(other[0])
                    if own != others or unlike or other in lost:
                        lost.add(part)
        return lost

    def groups(self) -> list[set[str]]:
        """Tables that are ready for something, as far as edges of shared runs connect them."""
        keys = {key for key, _ in self.ready}
        found: list[set[str]] = []
        for key in keys:
            group = {key}
            while more := {k for k in keys - group if any(self.together(k, other) for other in group)}:
                group |= more
            if group not in found:
                found.append(group)
        return found

    def is_current(self, part: Part) -> bool:
        partitioning = self.project.tables[part[0]].partitioning
        if partitioning is not None and partitioning.end is not None:
            last = windows(partitioning, len(self.indices(part[0])))[-1][1]
            if last >= instant(partitioning, partitioning.end):
                return False
        return part[1] >= len(self.indices(part[0])) - 2

    def run_at_once(self, left: set[Part]) -> tuple[frozenset[str], int, int]:
        """The oldest run with a current partition, of what each group of tables offers, else the oldest."""
        offers = []
        for group in self.all_groups:
            parts = {part for part in left if part[0] in group}
            if not parts:
                continue
            first = self.oldest(parts)
            current = {part for part in parts if self.is_current(part)}
            tables = [self.project.tables[key] for key in group]
            in_order = any(
                t.merges_in_order or t.reads_itself or t.materialized == "incremental" for t in tables
            )
            if current and not in_order and not self.reaches(first, left):
                first = self.oldest(current)
            reaches = self.reaches(first, left)
            depth = self.depth(first[0]) if reaches else 0
            offers.append((not reaches, -depth, self.start(first), self.position[first[0]], first))
        return self.run_from(min(offers)[-1], left)

    def depth(self, key: str) -> int:
        """How long the longest chain of readers is."""
        readers = [
            t.key for t in self.project.tables.values() if any(u.key == key != t.key for u in t.upstreams)
        ]
        return max((self.depth(reader) + 1 for reader in readers), default=0)

    def oldest(self, parts: set[Part]) -> Part:
        return min(parts, key=lambda part: (self.start(part), self.position[part[0]]))

    def reaches(self, first: Part, left: set[Part]) -> bool:
        return self.is_current((first[0], self.run_from(first, left)[2]))

    def run_from(self, first: Part, left: set[Part]) -> tuple[frozenset[str], int, int]:
        tables = self.sharing(first, left)
        last = first[1]
        while last + 2 - first[1] <= self.size(first[0]):
            following = (first[0], last + 1)
            if following not in left or self.sharing(following, left) != tables:
                break
            last += 1
        smaller = {(key, first[1]) for key in tables if self.size(key) <= last - first[1]}
        column = {(key, first[1]) for key in tables} - smaller
        column -= self.below(smaller, column)
        return self.sharing(first, column), first[1], last

    def run_of_a_backfill(self, left: set[Part]) -> tuple[frozenset[str], int, int] | None:
        """The oldest run of the oldest backfill that is ready to its end."""
        found = []
        for backfill in {self.backlog[part] for part in left}:
            ready = {part for part in left if self.backlog[part] == backfill}
            coming = {part for part in self.coming if self.backlog[part] == backfill}
            for key in {key for key, _ in ready}:
                run = self.oldest_full_run(key, ready, coming)
                if run and not any(self.needs((key, i), left) for i in run):
                    found.append((backfill, self.start((key, run[0])), self.position[key], key, run))
        if not found:
            return None
        backfill, _, _, key, run = min(found)
        ready = {part for part in left if self.backlog[part] == backfill}
        whole: set[str] = set()
        for other in self.project.tables:
            parts = [(other, i) for i in run]
            needed = {k for part in parts for k, _ in self.needs(part, ready)}
            if all(p in ready for p in parts) and self.size(other) == self.size(key) and needed <= whole:
                whole.add(other)
        return self.sharing((key, run[0]), {(k, run[0]) for k in whole}), run[0], run[-1]

    def oldest_full_run(self, key: str, ready: set[Part], coming: set[Part]) -> list[int]:
        runs: list[list[int]] = []
        for index in self.indices(key):
            if (key, index) not in ready | coming:
                continue
            if runs and runs[-1][-1] == index - 1 and len(runs[-1]) < self.size(key):
                runs[-1].append(index)
            else:
                runs.append([index])
        return next((run for run in runs if all((key, i) in ready for i in run)), [])
