"""A small project without dbt, and its state by slow and obvious loops over the events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, time, timezone
from typing import Any

import numpy as np

from t2.ledger.events import (
    CheckPlanned,
    Evaluated,
    Event,
    Failed,
    Materialized,
    Planned,
    RunChanged,
    Skipped,
)
from t2.planning.grid import Grid
from t2.planning.state import State, TableState
from t2.project.model import Daily, Grain, Partitioning, Project, Source, Table, Test, Upstream

DAYS = Partitioning(Grain.DAY, datetime(2024, 1, 1), "at")
NOW = datetime(2024, 1, 4, 12, tzinfo=timezone.utc)
ENDED = {"success", "failure", "canceled"}


def table(key: str, partitioning: Partitioning | None = None, **changes: Any) -> Table:
    schema, name = key.split("/")
    defaults: dict[str, Any] = {
        "unique_id": f"model.p.{name}",
        "name": name,
        "schema": schema,
        "database": None,
        "kind": "model",
        "materialized": "table",
        "relation": key,
        "file": "m.sql",
        "code_version": "v1",
    }
    return Table(key=key, partitioning=partitioning, **{**defaults, **changes})


def source(key: str, partitioning: Partitioning | None = None) -> Source:
    schema, name = key.split("/")
    return Source(key, f"source.p.{name}", name, schema, None, schema, key, "s.yml", partitioning)


def check(key: str, name: str, severity: Any = "error", **changes: Any) -> Test:
    return Test(f"test.p.{name}", name, key, "not_null", severity, **{"per_partition": True, **changes})


def project(*nodes: Table | Source, fingerprint: str = "f") -> Project:
    return Project(
        name="p",
        root="/p",
        profiles_dir="/p",
        target="dev",
        adapter="duckdb",
        fingerprint=fingerprint,
        manifest="m",
        dbt_version="1",
        tables={node.key: node for node in nodes if isinstance(node, Table)},
        sources={node.key: node for node in nodes if isinstance(node, Source)},
    )


# raw → a → b (which reads itself) → whole, an unpartitioned table
CHECKS = (
    check("s/a", "c"),
    check("s/a", "w", "warn"),
    check("s/a", "named", blocks=("s/b", "s/whole")),
    check("s/a", "whole", per_partition=False, daily=Daily(time(6))),
)
PROJECT = project(
    source("s/raw", DAYS),
    table("s/a", DAYS, upstreams=(Upstream("s/raw"),), tests=CHECKS),
    table("s/b", DAYS, upstreams=(Upstream("s/a"), Upstream("s/b", 1)), tests=(check("s/b", "c"),)),
    table("s/whole", upstreams=(Upstream("s/b"),)),
)


def plain(state: State) -> dict[str, dict[str, Any]]:
    """Return a state as lists, code versions by name."""
    names = {number: name for name, number in state.codes.items()} | {-1: ""}
    shown = {}
    for key, past in state.tables.items():
        values = asdict(past)
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                values[name] = np.nan_to_num(value).tolist()
        values["barred"] = {other: flags.tolist() for other, flags in past.barred.items() if flags.any()}
        values["code"] = [names[number] for number in values["code"]]
        values["failed_code"] = [names[number] for number in values["failed_code"]]
        shown[key] = values
    return shown


def reference(project: Project, events: Sequence[Event], now: datetime = NOW) -> dict[str, dict[str, Any]]:
    """Return what `plain` gives for the ledger's state after these events."""
    state = {}
    for node in project.nodes():
        grid = Grid.of(node.partitioning) if node.partitioning else None
        count = grid.count(now) if grid else 1
        values = plain(State({node.key: TableState.empty(count)}))[node.key]
        for number in range(count):
            partition = grid.key(number) if grid else ""
            for name, value in _partition(project, events, node.key, partition).items():
                values[name][number] = value
        for name, value in _failing(project, events, node, count).items():
            values[name] = value
        values["active_runs"] = len(
            {
                event.run_id
                for event in events
                if isinstance(event, Planned)
                and event.table == node.key
                and _status(events, event.run_id) not in ENDED
                and not _complete(events, event.run_id, event.table, event.partition)
            }
        )
        state[node.key] = values
    return state


def _partition(project: Project, events: Sequence[Event], key: str, partition: str) -> dict[str, Any]:
    landed = _landed(events, key, partition)
    values: dict[str, Any] = {"blocked": False, "active": 0}
    if landed:
        values |= {"landed_id": landed.id, "as_of": landed.as_of}
        values |= {"landed_at": landed.at, "code": landed.code_version}
        status = _status(events, landed.run_id)
        planned = any(_is_target(event, landed.run_id, key, partition) for event in events)
        if planned and status in ENDED and not _complete(events, landed.run_id, key, partition):
            values["blocked"] = True
    for evaluation, held in _holding(project, events, key, partition):
        if held is None and evaluation:
            values["blocked"] = True
    attempts: list[tuple[int, float, int, str, str]] = []
    for event in events:
        if isinstance(event, Failed) and (event.table, event.partition) == (key, partition):
            attempts.append((event.id, event.at, event.as_of, event.code_version, "failed"))
    for run_id in {event.run_id for event in events if _is_target(event, event.run_id, key, partition)}:
        if _complete(events, run_id, key, partition):
            continue
        status = _status(events, run_id)
        if status in ENDED:
            attempts += _ended(project, events, run_id, key, partition)
        else:
            values["active"] = max(values["active"], 2 if status in ("started", "canceling") else 1)
    attempts = sorted(attempt for attempt in attempts if attempt[0] > (landed.id if landed else 0))
    if attempts:
        newest = attempts[-1]
        values |= {"failed_id": newest[0], "failed_at": newest[1], "failed_as_of": newest[2]}
        values |= {"failed_code": newest[3], "canceled": newest[4] == "canceled"}
        values["failures"] = sum(attempt[3] == newest[3] for attempt in attempts)
    return values


def _ended(project: Project, events: Sequence[Event], run_id: str, key: str, partition: str) -> list[Any]:
    """Return the attempt of an ended run that left a target undone, if it is one."""
    own = [event for event in events if event.run_id == run_id]
    end = max((e for e in own if isinstance(e, RunChanged) and e.status in ENDED), key=lambda e: e.id)
    if any(isinstance(e, Failed | Skipped) and (e.table, e.partition) == (key, partition) for e in own):
        return []
    if end.status != _status(events, run_id):
        raise AssertionError("a run ended twice")
    if end.status == "canceled":
        return [(end.id, end.at, end.id, "", "canceled")]
    said = {event.partition for event in own if isinstance(event, Failed) and event.table == key}
    if not all(_complete(events, run_id, key, other) for other in said):
        return []
    reads = {edge.key for edge in project.tables[key].upstreams} - {key} if key in project.tables else set()
    for other in own:
        if isinstance(other, Evaluated) and other.table in reads and other.blocks:
            return []
        named = isinstance(other, Planned | Failed | Skipped) and other.table in reads
        if named and not _complete(events, run_id, other.table, other.partition):
            return []
    if end.status == "success" and _landed(events, key, partition):
        return []
    starts = [event.id for event in own if isinstance(event, RunChanged) and event.status == "started"]
    plans = [event.id for event in own if _is_target(event, run_id, key, partition)]
    return [(end.id, end.at, max(starts, default=0) or max(plans), "", "died")]


def _landed(events: Sequence[Event], key: str, partition: str) -> Materialized | None:
    mine = [e for e in events if isinstance(e, Materialized) and (e.table, e.partition) == (key, partition)]
    return max(mine, key=lambda event: event.id, default=None)


def _newest_evaluations(events: Sequence[Event], key: str, partition: str) -> dict[str, Evaluated]:
    newest: dict[str, Evaluated] = {}
    for event in sorted(events, key=lambda event: event.id):
        if isinstance(event, Evaluated) and (event.table, event.partition) == (key, partition):
            newest[event.check] = event
    return newest


def _holding(project: Project, events: Sequence[Event], key: str, partition: str) -> list[Any]:
    """Return the failed evaluations that hold back readers of a partition, with whom they hold back."""
    landed, node = _landed(events, key, partition), project.node(key)
    tests = {test.name: test for test in node.tests}
    found = []
    for evaluation in _newest_evaluations(events, key, partition).values():
        test = tests.get(evaluation.check)
        if test is None:
            stands = landed is None or evaluation.id > landed.id or evaluation.run_id == landed.run_id
            if evaluation.blocks and not evaluation.test and stands:
                found.append((evaluation, None))
        elif evaluation.fails and not _is_whole(node, test):
            found.append((evaluation, test.held))
    for test in node.tests:
        if not _is_whole(node, test):
            continue
        all_of_it = [e for e in events if isinstance(e, Evaluated) and (e.table, e.check) == (key, test.name)]
        passed = max((e.as_of or e.id for e in all_of_it if e.passed), default=0)
        everywhere = {e.partition for e in all_of_it}
        newest = [_newest_evaluations(events, key, other)[test.name] for other in everywhere]
        failing = [e for e in newest if e.fails and e.id > passed]
        since = passed or min((e.id for e in all_of_it), default=0)
        if failing and (partition in {e.partition for e in failing} or (landed and landed.id > since)):
            found.append((failing[0], test.held))
    return [(evaluation, held) for evaluation, held in found if held != ()]


def _is_whole(node: Table | Source, test: Test) -> bool:
    return node.partitioning is not None and not test.per_partition


def _failing(project: Project, events: Sequence[Event], node: Table | Source, count: int) -> dict[str, Any]:
    """Return whom failed checks hold back by name, which checks those are, and when daily ones ran."""
    grid = Grid.of(node.partitioning) if node.partitioning else None
    barred: dict[str, list[bool]] = {}
    for number in range(count):
        for _, held in _holding(project, events, node.key, grid.key(number) if grid else ""):
            for other in held or ():
                barred.setdefault(other, [False] * count)[number] = True
    partitions = {event.partition for event in events if isinstance(event, Evaluated)}
    failing = {e.check for partition in partitions for e, _ in _holding(project, events, node.key, partition)}
    ran = [e for e in sorted(events, key=lambda e: e.id) if isinstance(e, Evaluated) and e.table == node.key]
    daily = {test.name for test in node.tests if test.daily}
    checked_at = {event.check: event.at for event in ran if event.check in daily}
    return {"barred": barred, "failing": failing, "checked_at": checked_at}


def _status(events: Sequence[Event], run_id: str) -> str:
    mine = [event for event in events if event.run_id == run_id and isinstance(event, RunChanged | Planned)]
    newest = max(mine, key=lambda event: event.id, default=None)
    return newest.status if isinstance(newest, RunChanged) else "queued"


def _is_target(event: Event, run_id: str, key: str, partition: str) -> bool:
    return isinstance(event, Planned) and (event.run_id, event.table, event.partition) == (
        run_id,
        key,
        partition,
    )


def _complete(events: Sequence[Event], run_id: str, key: str, partition: str) -> bool:
    built = max(
        (
            event.id
            for event in events
            if isinstance(event, Materialized)
            and (event.run_id, event.table, event.partition) == (run_id, key, partition)
        ),
        default=0,
    )
    if not built:
        return False
    if _status(events, run_id) == "success":
        return True
    newest = _newest_evaluations(events, key, partition)
    return all(
        event.check in newest and (newest[event.check].run_id == run_id or newest[event.check].id > built)
        for event in events
        if isinstance(event, CheckPlanned) and (event.run_id, event.table) == (run_id, key)
    )
