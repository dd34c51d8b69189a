"""The planner's verdicts as Dagster stores those of its own conditions: what the Automation tab shows.

An evaluation is a chain of conditions in the order of docs/planning.md's rules, each looked at for the
partitions that passed the one before, so that where the number drops is what holds them back. Conditions that
stop nothing are left out, but the first, and whether inputs are ready.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
from numpy.typing import NDArray

from t2.definitions._dagster import automation
from t2.definitions.partitions import partitions_def
from t2.planning.grid import Bools, Grid, Ints
from t2.planning.planner import Plan
from t2.planning.reasons import verdict
from t2.planning.verdict import WAITING, Outcome, Request
from t2.project.model import Cron, Partitioning, Project, Table

if TYPE_CHECKING:
    from t2.definitions._dagster.evaluation_store import EvaluationStore

# An evaluation is a few KB for any number of partitions: this many ancestors are named, and this many ranges
# of neighbouring partitions told apart. Of up to `KEYS` partitions the keys are stored, of more the newest
# windows, which need their partitions definition beside them (500 bytes).
ANCESTORS = 5
RANGES = 24
KEYS = 24
WINDOWS = 5
SPELLED = 10
DAY = 86400.0
KEPT_SECONDS = 30 * DAY  # as long as Dagster keeps its own

STEPS = (
    ("changed or missing", (Outcome.LANDED, Outcome.NOT_DUE)),
    ("not running", (Outcome.RUNNING, Outcome.QUEUED)),
    ("allowed by its policy", (Outcome.MANUAL, Outcome.SCHEDULED, Outcome.PAUSED)),
    ("inputs are ready", (Outcome.WAITING,)),
    ("not held back by a failure", (Outcome.BLOCKED, Outcome.FAILED, Outcome.RETRYING)),
    ("has room", (Outcome.HELD,)),
)
INPUTS = 3
# By outcome: the step that a partition with it does not pass; one more than there are if it passes all.
STOPS = np.full(len(Outcome), len(STEPS), np.int8)
for number, (_, stopped) in enumerate(STEPS):
    STOPS[list(stopped)] = number


def policy(table: Table) -> str:
    """Return what a table's condition is called: `T2: eager`, `T2: cron 0 6 * * * (Europe/Berlin)`."""
    if isinstance(table.automation, Cron):
        return f"T2: cron {table.automation.expression} ({table.automation.timezone})"
    return f"T2: {table.automation}"


@dataclass(frozen=True)
class Partitions:
    """Some partitions of a table: how many, and the newest of them as (first, last) numbers."""

    count: int = 0
    ranges: tuple[tuple[int, int], ...] = ()

    @staticmethod
    def of(numbers: Ints) -> Partitions:
        """Fold sorted numbers."""
        if not len(numbers):
            return Partitions()
        breaks = np.flatnonzero(np.diff(numbers) > 1)
        firsts = numbers[np.append(0, breaks + 1)][-RANGES:]
        lasts = numbers[np.append(breaks, len(numbers) - 1)][-RANGES:]
        return Partitions(len(numbers), tuple(zip(firsts.tolist(), lasts.tolist(), strict=True)))


@dataclass(frozen=True)
class Ancestor:
    """A table or source that is waited for, and which partitions of it."""

    key: str
    waited: Partitions


@dataclass(frozen=True)
class Summary:
    """What is told of a table: its policy and the partitions that are left after each of `STEPS`.

    `waits`: the newest partition that waits; `ancestors` what it waits for, `others` how many more there are.
    """

    policy: str
    left: tuple[Partitions, ...]
    waits: int | None = None
    ancestors: tuple[Ancestor, ...] = ()
    others: int = 0

    @property
    def steps(self) -> list[int]:
        """The numbers of `STEPS` to show: those that stop something, the first, and the inputs."""
        counts = [some.count for some in self.left]
        return [
            step
            for step, count in enumerate(counts)
            if step == 0 or counts[step - 1] > (count if step != INPUTS else 0)
        ]

    @property
    def mark(self) -> str:
        """A hash: what was stored with it says the same."""
        return blake2b(repr(self).encode(), digest_size=12).hexdigest()


class Evaluations:
    """Stores an evaluation of each table whose verdicts are others than those that were stored last."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._keys = {key: dg.AssetKey(key.split("/")) for key in project.tables}
        self._marks: dict[str, str] | None = None
        self._seen: dict[str, tuple[object, object]] = {}
        self._requested: set[str] = set()
        self._plan: Plan | None = None
        self._purged = 0.0

    def store(self, instance: dg.DagsterInstance, tick: int, plan: Plan, requests: Sequence[Request]) -> int:
        """Store what changed since the last plan that was stored, and return how many tables that is.

        `tick`: the sensor's tick in which the plan was made. `requests`: those of the plan that were asked
        for.
        """
        if plan is self._plan:
            return 0
        changed = list(self._changed(plan, requests))
        self._plan = plan
        if not changed:
            return 0
        from t2.definitions._dagster.evaluation_store import EvaluationStore

        store = EvaluationStore(instance)
        if not store.is_there():
            return 0
        known = self._known(store)
        told = summaries(plan, changed, requests)
        fresh = {key: summary for key, summary in told.items() if known.get(key) != summary.mark}
        store.put(tick, [self._tree(key, summary) for key, summary in fresh.items()])
        known.update((key, summary.mark) for key, summary in fresh.items())
        self._purge(store, plan.now.timestamp())
        return len(fresh)

    def _changed(self, plan: Plan, requests: Sequence[Request]) -> Iterator[str]:
        """Yield the tables that were worked out anew, or of which something is or was requested."""
        requested = {key for request in requests for key in request.tables}
        for key in self.project.tables:
            seen = (plan.kept.get(key), plan.outcomes[key])
            before = self._seen.get(key, (None, None))
            self._seen[key] = seen
            same = seen[0] is before[0] is not None and seen[1] is before[1]
            if not same or key in requested or key in self._requested:
                yield key
        self._requested = requested

    def _known(self, store: EvaluationStore) -> dict[str, str]:
        """Return the mark of what was stored last of each table, at first what another process stored."""
        if self._marks is None:
            self._marks = {key.to_user_string(): mark for key, mark in store.marks(self._keys.values())}
        return self._marks

    def _purge(self, store: EvaluationStore, now: float) -> None:
        if now - self._purged >= DAY:
            store.purge(now - KEPT_SECONDS)
            self._purged = now

    def _tree(self, key: str, summary: Summary) -> automation.Evaluation:
        """Return a table's evaluation; the root carries the mark."""
        asset, cut = self._keys[key], self.project.tables[key].partitioning
        left = [subset(asset, cut, some) for some in summary.left]
        children = [
            automation.node(
                str(step),
                STEPS[step][0],
                left[step],
                left[step - 1] if step else _all(asset, cut),
                self._ancestors(summary) if step == INPUTS else (),
            )
            for step in summary.steps
        ]
        return automation.node(
            summary.mark, summary.policy, left[-1], _all(asset, cut), children, self._metadata(key, summary)
        )

    def _ancestors(self, summary: Summary) -> list[automation.Evaluation]:
        """Return a condition for each ancestor, of which none of the partitions waited for is there."""
        found = []
        for number, ancestor in enumerate(summary.ancestors, 1):
            node = self.project.node(ancestor.key)
            asset = dg.AssetKey(ancestor.key.split("/"))
            name, value = self._waiting_on(number, ancestor)
            waited = subset(asset, node.partitioning, ancestor.waited)
            none = subset(asset, node.partitioning, Partitions())
            found.append(automation.node(f"ancestor {number}", f"{name} = {value}", none, waited))
        return found

    def _metadata(self, key: str, summary: Summary) -> tuple[automation.Subset, Mapping[str, str]] | None:
        if summary.waits is None:
            return None
        told = dict(self._waiting_on(number, one) for number, one in enumerate(summary.ancestors, 1))
        if summary.others:
            told["waiting_on_others"] = f"{summary.others} more"
        waiting = Partitions(1, ((summary.waits, summary.waits),))
        return subset(self._keys[key], self.project.tables[key].partitioning, waiting), told

    def _waiting_on(self, number: int, ancestor: Ancestor) -> tuple[str, str]:
        """Return the entry of one ancestor: `waiting_on_ancestor_1`, `core / dim_users (2024-01-03)`."""
        partitioning = self.project.node(ancestor.key).partitioning
        value = " / ".join(ancestor.key.split("/"))
        if partitioning is not None:
            value += f" ({spelled(Grid.of(partitioning), ancestor.waited)})"
        return f"waiting_on_ancestor_{number}", value


def summaries(plan: Plan, keys: Sequence[str], requests: Sequence[Request]) -> dict[str, Summary]:
    """Return what is to tell of some tables; `requests`: what was asked for of what is ready."""
    asked: dict[str, list[tuple[int, int]]] = {}
    for request in requests:
        for key in request.tables:
            asked.setdefault(key, []).append(_numbers(plan.project.tables[key], request))
    return {key: _summary(plan, key, asked.get(key, [])) for key in keys}


def _summary(plan: Plan, key: str, asked: list[tuple[int, int]]) -> Summary:
    table, outcome = plan.project.tables[key], plan.outcomes[key]
    left = list(_left(outcome))
    left[-1] = left[-1][_within(left[-1], asked)]
    waiting = np.flatnonzero(outcome == WAITING)
    folded = tuple(Partitions.of(numbers) for numbers in left)
    if not len(waiting):
        return Summary(policy(table), folded)
    newest = int(waiting[-1])
    ancestors = _ancestors(plan, key, newest)
    return Summary(policy(table), folded, newest, ancestors[:ANCESTORS], len(ancestors[ANCESTORS:]))


def _left(outcome: NDArray[np.int8]) -> Iterator[Ints]:
    """Yield the numbers of the partitions that pass each of `STEPS` and those before."""
    stops = STOPS[outcome]
    numbers = np.flatnonzero(stops)
    stops = stops[numbers]
    for step in range(len(STEPS)):
        yield numbers[stops > step]


def _within(numbers: Ints, ranges: list[tuple[int, int]]) -> Bools:
    found = np.zeros(len(numbers), np.bool_)
    for first, last in ranges:
        found |= (numbers >= first) & (numbers <= last)
    return found


def _numbers(table: Table, request: Request) -> tuple[int, int]:
    if table.partitioning is None or request.first is None or request.last is None:
        return 0, 0
    grid = Grid.of(table.partitioning)
    return grid.index(request.first), grid.index(request.last)


def _ancestors(plan: Plan, key: str, index: int) -> tuple[Ancestor, ...]:
    """Return what a partition waits for, in the order of the verdict's reasons."""
    waited: dict[str, list[Ints]] = {}
    for reason in verdict(plan, key, index).reasons:
        waited.setdefault(reason.key, []).append(np.arange(reason.first, reason.last + 1))
    return tuple(
        Ancestor(name, Partitions.of(np.unique(np.concatenate(found)))) for name, found in waited.items()
    )


def subset(asset: dg.AssetKey, partitioning: Partitioning | None, some: Partitions) -> automation.Subset:
    """Return partitions as Dagster stores them; of many ranges the oldest are only counted."""
    cut = partitions_def(partitioning)
    if partitioning is None or cut is None:
        return automation.whole(asset, there=some.count > 0)
    grid = Grid.of(partitioning)
    if some.count <= KEYS:
        return automation.keyed(asset, _keys(grid, some.ranges))
    return automation.windows(asset, cut, some.count, (grid.window(a, b) for a, b in some.ranges[-WINDOWS:]))


@lru_cache
def _keys(grid: Grid, ranges: tuple[tuple[int, int], ...]) -> list[str]:
    return grid.keys(number for first, last in ranges for number in range(first, last + 1))


def _all(asset: dg.AssetKey, partitioning: Partitioning | None) -> automation.Subset | None:
    return automation.whole(asset, there=True) if partitioning is None else None


@lru_cache
def spelled(grid: Grid, some: Partitions) -> str:
    """Return partitions as users read them: `2024-01-01 to 2024-01-03, 2024-01-07`."""
    ranges = some.ranges[-SPELLED:]
    named = [
        grid.key(first) if first == last else f"{grid.key(first)} to {grid.key(last)}"
        for first, last in ranges
    ]
    unnamed = some.count - sum(last - first + 1 for first, last in ranges)
    return ", ".join([*([f"{unnamed} older"] if unnamed else []), *named])
