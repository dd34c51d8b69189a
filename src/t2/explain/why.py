"""The planner's verdict read aloud: why a partition is or is not up to date, walked to the root causes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from math import inf
from typing import Any, Protocol

from t2.planning.grid import Grid
from t2.planning.inputs import window_of
from t2.planning.planner import Plan
from t2.planning.reasons import outcome_of, verdict
from t2.planning.schedule import next_tick
from t2.planning.state import UNKNOWN_CODE
from t2.planning.verdict import Outcome, Reason
from t2.project.model import Cron, Project, Source, Table

FOLD = 10
# "Runtime Error in model fct_orders (models/fct_orders.sql)"
DBT_HEAD = re.compile(r"\w+ Error in \w+ \S+ \(.*\)$")


class Facts(Protocol):
    """What the ledger knows beyond the planner's arrays: texts and names, fetched for what is shown."""

    def failure(self, key: str, partition: str) -> str | None:
        """Return the newest failed attempt's error."""

    def failed_checks(
        self, project: Project, key: str, partition: str, reader: str | None = None
    ) -> list[str]:
        """Return the checks that hold back all readers, or a reader by name, each with its count of rows."""

    def run_of(self, key: str, partition: str) -> str | None:
        """Return the id of the run that landed a partition."""


@dataclass(frozen=True)
class Cause:
    """One root cause: partitions `first` to `last` of `table` (None: the whole table)."""

    table: str
    first: str | None
    last: str | None
    partitions: int
    outcome: str
    text: str
    owner: str | None
    clears: str


@dataclass(frozen=True)
class Answer:
    """Why one partition is as it is: one sentence, and the root causes behind it."""

    table: str
    partition: str | None
    outcome: str
    sentence: str
    causes: tuple[Cause, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the answer as the API and `--format json` give it."""
        return asdict(self)


def why(plan: Plan, facts: Facts, key: str, index: int) -> Answer:
    """Explain one partition of a table or source; `index` is 0 for an unpartitioned one."""
    outcome = outcome_of(plan, key, index)
    causes = tuple(_roots(plan, facts, key, index))
    return Answer(
        table=key,
        partition=label(plan, key, index),
        outcome=outcome.label,
        sentence=_sentence(plan, facts, key, index, outcome),
        causes=causes,
    )


def interesting(plan: Plan, key: str) -> int:
    """Return the partition that a question about the whole table is about.

    The oldest that has not landed, else the newest that has.
    """
    count = plan.state.tables[key].count
    for index in range(count):
        if outcome_of(plan, key, index) is not Outcome.LANDED:
            return index
    return max(count - 1, 0)


def label(plan: Plan, key: str, index: int) -> str | None:
    """Return a partition's key, None for an unpartitioned table."""
    partitioning = plan.project.node(key).partitioning
    return Grid.of(partitioning).key(index) if partitioning else None


def _sentence(plan: Plan, facts: Facts, key: str, index: int, outcome: Outcome) -> str:
    subject = _join(key, label(plan, key, index))
    node = plan.project.node(key)
    if outcome is Outcome.LANDED:
        return f"{subject} is up to date: {_proof(plan, facts, key, index)}."
    if outcome is Outcome.WAITING and isinstance(node, Table):
        reasons = verdict(plan, key, index).reasons
        shown = [_owes(plan, facts, key, index, reason) for reason in reasons[:FOLD]]
        if len(reasons) > FOLD:
            shown.append(f"{len(reasons) - FOLD} more")
        return f"{subject} waits for " + "; ".join(shown) + "."
    return f"{subject} {_state(plan, facts, key, index, outcome)}."


def _proof(plan: Plan, facts: Facts, key: str, index: int) -> str:
    past = plan.state.tables[key]
    run = facts.run_of(key, label(plan, key, index) or "")
    by = f" by run {run[:8]}" if run else ""
    landed = f"landed {_time(float(past.landed_at[index]))}{by}"
    node = plan.project.node(key)
    if isinstance(node, Source):
        return landed
    if past.failed_id[index]:
        error = _first_line(facts.failure(key, label(plan, key, index) or "") or "without saying why")
        return f"{landed}; no input changed since; another attempt at it failed: {error}"
    if past.code[index] not in (UNKNOWN_CODE, plan.state.code_id(node.code_version)):
        return f"{landed}; no input changed since; its code did, which alone builds nothing again"
    return f"{landed}, and no input changed since"


def _owes(plan: Plan, facts: Facts, key: str, index: int, reason: Reason) -> str:
    """Say which partitions of an upstream are missing: "3 of its 24 partitions of x (15:00 to 17:00)"."""
    span = _span(plan, reason.key, reason.first, reason.last)
    if reason.named:
        return f"{_join(reason.key, span)} ({_checks(plan, facts, key, reason)} blocks it)"
    table = plan.project.tables[key]
    node = plan.project.node(reason.key)
    if node.partitioning is None:
        return f"{reason.key} ({_word(node, reason.outcome)})"
    upstream = next(edge for edge in table.upstreams if edge.key == reason.key)
    if table.partitioning is None or upstream.window == "all":
        return f"{reason.count} partitions of {reason.key} ({span}: {_word(node, reason.outcome)})"
    low, high = window_of(plan.project, table, upstream, plan.state.tables[reason.key], index + 1)
    total = int(high[index] - low[index])
    if total == 1:
        return f"{reason.key} {span} ({_word(node, reason.outcome)})"
    return f"{reason.count} of its {total} partitions of {reason.key} ({span}: {_word(node, reason.outcome)})"


def _checks(plan: Plan, facts: Facts, reader: str, reason: Reason) -> str:
    """Return the checks that failed and block a reader by name."""
    partition = label(plan, reason.key, reason.first) or ""
    return ", ".join(facts.failed_checks(plan.project, reason.key, partition, reader))


def _word(node: Table | Source, outcome: Outcome) -> str:
    if isinstance(node, Source):
        return {Outcome.WAITING: "not landed", Outcome.BLOCKED: "failed a check"}.get(outcome, outcome.label)
    return "about to be built again" if outcome is Outcome.LANDED else outcome.label


def _roots(plan: Plan, facts: Facts, key: str, index: int) -> Iterator[Cause]:
    """Walk what a partition waits for down to what waits for nothing itself; each root once."""
    todo, seen = [(key, index, index)], set()
    found: dict[tuple[str, Outcome], tuple[int, int]] = {}
    named: dict[Reason, str] = {}
    while todo:
        current, first, last = todo.pop()
        outcome = outcome_of(plan, current, first)
        reasons = verdict(plan, current, first).reasons if current in plan.project.tables else ()
        if reasons and not (outcome is Outcome.LANDED and current == key):
            named.update((reason, current) for reason in reasons if reason.named)
            for reason in (reason for reason in reasons if not reason.named):
                step = (reason.key, reason.first, reason.last)
                if step not in seen:
                    seen.add(step)
                    todo.append(step)
        elif outcome is not Outcome.LANDED or current != key:
            low, high = found.get((current, outcome), (first, last))
            found[current, outcome] = (min(low, first), max(high, last))
    for (root, outcome), (first, last) in found.items():
        yield _cause(plan, facts, root, outcome, first, last)
    for reason, reader in named.items():
        yield _named_cause(plan, facts, reason, reader)


def _cause(plan: Plan, facts: Facts, key: str, outcome: Outcome, first: int, last: int) -> Cause:
    node = plan.project.node(key)
    return Cause(
        table=key,
        first=label(plan, key, first),
        last=label(plan, key, last),
        partitions=last - first + 1,
        outcome=outcome.label,
        text=_join(key, _span(plan, key, first, last), _state(plan, facts, key, first, outcome)),
        owner=", ".join(node.owners) or None,
        clears=_clears(plan, key, outcome, label(plan, key, first), label(plan, key, last)),
    )


def _named_cause(plan: Plan, facts: Facts, reason: Reason, reader: str) -> Cause:
    node, first = plan.project.node(reason.key), label(plan, reason.key, reason.first)
    span = _span(plan, reason.key, reason.first, reason.last)
    return Cause(
        table=reason.key,
        first=first,
        last=label(plan, reason.key, reason.last),
        partitions=reason.count,
        outcome=reason.outcome.label,
        text=_join(reason.key, span, f"failed {_checks(plan, facts, reader, reason)}"),
        owner=", ".join(node.owners) or None,
        clears=_passes(node, first, label(plan, reason.key, reason.last)),
    )


def _passes(node: Table | Source, first: str | None, last: str | None) -> str:
    """Say how a check that is not part of a new build passes."""
    span = f" {first}" if first == last else f" --from {first} --to {last}"
    again = f"`t2 check {node.key}{span if first else ''}`"
    if isinstance(node, Source):
        return f"clears when the rows are repaired and {again} passes"
    return f"clears when it is built again, or the rows are repaired and {again} passes"


def _state(plan: Plan, facts: Facts, key: str, index: int, outcome: Outcome) -> str:
    node = plan.project.node(key)
    partition = label(plan, key, index) or ""
    past = plan.state.tables[key]
    if outcome is Outcome.NOT_DUE and node.partitioning is not None:
        return f"is not over yet: its window ends {_end(node, index)}"
    if isinstance(node, Source):
        if outcome is Outcome.BLOCKED:
            return "failed " + ", ".join(facts.failed_checks(plan.project, key, partition))
        return "has not landed in the raw layer"
    if outcome is Outcome.BLOCKED:
        checks = (
            ", ".join(facts.failed_checks(plan.project, key, partition))
            or "the run ended before its checks did"
        )
        return f"is held back by {checks}"
    if outcome in (Outcome.FAILED, Outcome.RETRYING):
        error = _first_line(facts.failure(key, partition) or "its run ended without saying why")
        return "was canceled" if past.canceled[index] else f"failed {_times(past.failures[index])}: {error}"
    return _at_work(plan, key, outcome)


def _at_work(plan: Plan, key: str, outcome: Outcome) -> str:
    """Say what a table is doing, or why it does nothing, where nothing went wrong."""
    if outcome is Outcome.PAUSED:
        pause = plan.state.paused[key]
        return f"is paused by {pause.by} since {_time(pause.since)}: {pause.reason}"
    return {
        Outcome.RUNNING: "is being built",
        Outcome.QUEUED: "is queued",
        Outcome.READY: "is ready, and about to be requested",
        Outcome.HELD: "is ready, and waits for a free run (backfill.concurrency)",
        Outcome.MANUAL: "is built by hand only (automation: manual)",
        Outcome.SCHEDULED: f"waits for {_tick(plan, key)}",
        Outcome.LANDED: "is about to be built again",
    }.get(outcome, outcome.label)


def _tick(plan: Plan, key: str) -> str:
    policy = plan.project.tables[key].automation if key in plan.project.tables else None
    if not isinstance(policy, Cron):
        return "its schedule"
    return f"the next tick of its schedule ({policy.expression}) at {_time(next_tick(policy, plan.now))}"


def _clears(plan: Plan, key: str, outcome: Outcome, first: str | None, last: str | None) -> str:
    node = plan.project.node(key)
    if isinstance(node, Source):
        return _passes(node, first, last) if outcome is Outcome.BLOCKED else "clears when its data lands"
    span = f" --partition {first}" if first == last else f" --from {first} --to {last}"
    again = f"when `t2 check {node.key}{f' {first}' if first == last and first else ''}` passes"
    by_hand = f"with `t2 materialize {node.key}{span if first else ''}`"
    return {
        Outcome.BLOCKED: f"clears when an input or the code changes, {again}, or {by_hand}",
        Outcome.FAILED: f"clears when an input or the code changes, or {by_hand}",
        Outcome.RETRYING: "is retried by itself",
        Outcome.MANUAL: f"clears {by_hand}",
        Outcome.SCHEDULED: f"clears by itself after the tick, or {by_hand}",
        Outcome.PAUSED: f"clears {_resumes(plan, key)}",
        Outcome.NOT_DUE: "clears by itself when the window ends",
    }.get(outcome, "clears by itself")


def _resumes(plan: Plan, key: str) -> str:
    until = plan.state.paused[key].until if key in plan.state.paused else inf
    return f"with `t2 resume {key}`" + (f", or by itself at {_time(until)}" if until < inf else "")


def _join(*words: str | None) -> str:
    return " ".join(word for word in words if word)


def _span(plan: Plan, key: str, first: int, last: int) -> str:
    low, high = label(plan, key, first), label(plan, key, last)
    if low is None:
        return ""
    return low if first == last else f"{low} to {high}"


def _first_line(error: str) -> str:
    """Return the first line that says something: dbt's own first one only names the model."""
    head, *rest = [line.strip() for line in error.splitlines() if line.strip()]
    return rest[0] if rest and DBT_HEAD.match(head) else head


def _times(count: int) -> str:
    return "once" if count == 1 else "twice" if count == 2 else f"{count} times"


def _end(node: Table | Source, index: int) -> str:
    assert node.partitioning is not None
    return Grid.of(node.partitioning).window(index)[1].strftime("%Y-%m-%d %H:%M %Z")


def _time(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
