"""Small projects and their pasts, made by hand or by chance."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
from tests.planning.windows import CRONS

from t2.planning.grid import Grid
from t2.planning.state import UNKNOWN_CODE, Pause, State, TableState, Wanted
from t2.project.model import (
    Backfill,
    Cron,
    Grain,
    LateData,
    Partitioning,
    Project,
    Retries,
    Source,
    Table,
    Upstream,
)

BEGIN = datetime(2024, 3, 4)  # a Monday


def by(grain: Grain, begin: datetime = BEGIN, zone: str = "UTC") -> Partitioning:
    return Partitioning(grain, begin, "at", zone)


def source(name: str, partitioning: Partitioning | None = None) -> Source:
    return Source(
        key=f"raw/{name}",
        unique_id=f"source.p.raw.{name}",
        name=name,
        schema="raw",
        database=None,
        source_name="raw",
        relation=f"raw.{name}",
        file="sources.yml",
        partitioning=partitioning,
    )


def table(
    name: str,
    partitioning: Partitioning | None = None,
    *reads: str | Upstream,
    size: int = 1,
    concurrency: int = 1,
    **settings: object,
) -> Table:
    """Build a table `m/name`; `reads` are upstreams, a bare key meaning one without lookback."""
    upstreams = tuple(Upstream(up) if isinstance(up, str) else up for up in reads)
    values: dict[str, object] = {
        "kind": "model",
        "materialized": "partitioned" if partitioning else "table",
        "code_version": "v1",
        "partitioning": partitioning,
        "upstreams": upstreams,
        "backfill": Backfill(size, concurrency),
        "retries": Retries(attempts=1, wait_seconds=30),
        **settings,
    }
    return Table(
        key=f"m/{name}",
        unique_id=f"model.p.{name}",
        name=name,
        schema="m",
        database=None,
        relation=f"m.{name}",
        file=f"models/{name}.sql",
        **values,  # type: ignore[arg-type]
    )


def project(*nodes: Source | Table) -> Project:
    """Put nodes, given in dependency order, into a project."""
    return Project(
        name="p",
        root="/p",
        profiles_dir="/p",
        target="dev",
        adapter="duckdb",
        fingerprint="f",
        manifest="m",
        dbt_version="1.11",
        tables={node.key: node for node in nodes if isinstance(node, Table)},
        sources={node.key: node for node in nodes if isinstance(node, Source)},
    )


def count(node: Source | Table, now: datetime) -> int:
    return Grid.of(node.partitioning).count(now) if node.partitioning else 1


def blank(made: Project, now: datetime, codes: Mapping[str, int] | None = None) -> State:
    """Return the state of a project in which nothing has happened."""
    tables = {node.key: TableState.empty(count(node, now)) for node in made.nodes()}
    return State(tables, codes if codes is not None else {"v1": 0})


def land(
    state: State, key: str, indices: Iterable[int] | int | None = None, *, at: datetime | None = None
) -> None:
    """Land partitions (all of them by default) with the next event id, having seen all that came before."""
    past = state.tables[key]
    chosen = range(past.count) if indices is None else [indices] if isinstance(indices, int) else indices
    for index in chosen:
        state.cursor += 1
        past.landed_id[index] = state.cursor
        past.as_of[index] = state.cursor - 1
        past.landed_at[index] = at.timestamp() if at else float(state.cursor)
        past.code[index] = 0
        past.blocked[index] = False
        past.failed_id[index] = 0
        past.failures[index] = 0


def fail(
    state: State, key: str, index: int, now: datetime, *, seconds_ago: float = 0, times: int = 1
) -> None:
    """Record that the newest attempt on a partition failed, having seen everything so far."""
    past = state.tables[key]
    past.failed_as_of[index] = state.cursor
    state.cursor += 1
    past.failed_id[index] = state.cursor
    past.failed_at[index] = now.timestamp() - seconds_ago
    past.failed_code[index] = 0
    past.failures[index] = times


# --- by chance

LENGTHS = {Grain.HOUR: 30, Grain.DAY: 7, Grain.WEEK: 4, Grain.MONTH: 3}  # partitions, at most, before now


def chance_partitioning(dice: random.Random, now: datetime) -> Partitioning:
    grain = dice.choice([Grain.HOUR, Grain.HOUR, Grain.DAY, Grain.DAY, Grain.DAY, Grain.WEEK, Grain.MONTH])
    days = {Grain.HOUR: 1, Grain.DAY: 7, Grain.WEEK: 21, Grain.MONTH: 62}[grain]
    back = dice.choice([0, days // 2, days, days])
    begin = (now - timedelta(days=back)).replace(tzinfo=None, minute=0)
    zone = dice.choice(["UTC", "UTC", "America/New_York"])
    return Partitioning(grain, begin.replace(hour=0), "at", zone)


def chance_project(dice: random.Random, now: datetime, size: int) -> Project:
    cuts = [chance_partitioning(dice, now) for _ in range(2)]  # few, so that tables share them
    nodes: list[Source | Table] = []
    for number in range(dice.randint(1, 2)):
        nodes.append(source(f"s{number}", dice.choice([*cuts, *cuts, None])))
    for number in range(size):
        nodes.append(chance_table(dice, number, nodes, cuts))
    return project(*nodes)


def chance_table(
    dice: random.Random, number: int, nodes: list[Source | Table], cuts: list[Partitioning]
) -> Table:
    kind = dice.choice(["partitioned"] * 6 + ["table", "table", "view", "seed"])
    name = f"t{number}"
    version = dice.choice(["v1", "v1", "v1", "v2", "v3"])
    if kind == "seed":
        return table(name, kind="seed", materialized="seed", code_version=version)
    reads = chance_upstreams(dice, nodes, lookback=kind == "partitioned")
    if kind == "partitioned" and dice.random() < 0.25:
        reads.append(Upstream(f"m/{name}", dice.randint(1, 3)))
    return table(
        name,
        dice.choice(cuts) if kind == "partitioned" else None,
        *reads,
        size=dice.choice([1, 2, 3, 30]),
        concurrency=dice.choice([1, 2, 3, 100]),
        materialized=kind if kind != "partitioned" else dice.choice([kind, kind, "incremental"]),
        automation=dice.choice(["eager"] * 6 + ["manual"]),
        code_version=version,
        isolation=dice.choice(["run"] * 5 + ["table"]),
        retries=Retries(dice.randint(0, 2), 30),
    )


def chance_open(dice: random.Random, made: Project) -> Project:
    """Let some tables also have the partition that is not over yet."""
    tables = dict(made.tables)
    for key, table in tables.items():
        if table.partitioning is not None and dice.random() < 0.2:
            tables[key] = replace(table, partitioning=replace(table.partitioning, open=True))
    return replace(made, tables=tables)


def chance_policies(dice: random.Random, made: Project, state: State, now: datetime) -> tuple[Project, State]:
    """Give some tables other policies, windows and pauses, and what has landed a time."""
    tables = dict(made.tables)
    paused = {}
    for key, table in tables.items():
        if dice.random() < 0.2:
            cron = Cron(dice.choice(list(CRONS)), dice.choice(["UTC", "America/New_York"]))
            tables[key] = replace(table, automation=cron)
        if dice.random() < 0.15:
            late = LateData(dice.choice([0, 3600, 86400, None]), dice.choice(["rerun", "rerun", "ignore"]))
            tables[key] = replace(tables[key], late_data=late)
        if dice.random() < 0.4:
            reads = tuple(chance_window(dice, made, table, upstream) for upstream in table.upstreams)
            tables[key] = replace(tables[key], upstreams=reads)
        if dice.random() < 0.1:
            until = now.timestamp() + dice.choice([-60, 0, 60, math.inf])
            paused[key] = Pause(until, "a reason", "somebody", 0)
    for past in state.tables.values():
        ages = dice.choices([0, 60, 3600, 86400, 7 * 86400], k=past.count)
        past.landed_at[:] = np.where(past.landed_id > 0, now.timestamp() - np.array(ages), np.nan)
    return replace(made, tables=tables), replace(state, paused=paused)


def chance_window(dice: random.Random, made: Project, table: Table, upstream: Upstream) -> Upstream:
    """Read an upstream in another way, if it can be read so."""
    node = made.node(upstream.key)
    if table.is_view or upstream.key == table.key or dice.random() < 0.3:
        return upstream
    changed = replace(upstream, on_update=dice.choice([None, None, "rerun", "ignore"]))
    if node.partitioning is None:
        return changed
    kind = dice.choice(["latest", "all", "back", "shift", "optional", "optional", "as it is"])
    if kind in ("latest", "all"):
        return replace(changed, window=kind, lookback=0)
    if kind == "optional":
        wait = dice.choice([0, 3600, 86400]) if table.partitioning else 0
        return replace(changed, required=False, wait_seconds=wait)
    if table.partitioning is None or kind == "as it is":
        return changed
    if kind == "back":
        return replace(changed, lookback=0, back_seconds=dice.choice([1800, 7200, 100_000]))
    return replace(changed, shift_seconds=dice.choice([3600, -3600, 90_000]))


def chance_upstreams(
    dice: random.Random, nodes: list[Source | Table], *, lookback: bool
) -> list[str | Upstream]:
    found: dict[str, Upstream] = {}
    for node in dice.sample(nodes, min(len(nodes), dice.choice([1, 1, 2, 3]))):
        back = dice.choice([0, 0, 0, 1, 2]) if lookback and node.partitioning else 0
        found[node.key] = Upstream(node.key, back)
        if isinstance(node, Table) and node.is_view:
            for below in node.upstreams:
                path = (node.name, *below.through)
                found.setdefault(below.key, Upstream(below.key, 0, path))
    return list(found.values())


def chance_state(dice: random.Random, made: Project, now: datetime) -> State:
    state = blank(made, now, {"v1": 0, "v2": 1})
    trouble = dice.choice([0.0, 0.02, 0.1, 0.4])
    missing = dice.choice([0.0, 0.05, 0.3, 0.8])
    for depth, node in enumerate(made.nodes()):
        past = state.tables[node.key]
        for index in range(past.count):
            if dice.random() >= missing:
                chance_landing(dice, past, index, depth, trouble)
            if isinstance(node, Table) and dice.random() < 2 * trouble:
                chance_failure(dice, past, index, now)
            if isinstance(node, Table) and dice.random() < trouble / 2:
                past.active[index] = dice.choice([1, 2])
        if isinstance(node, Table):
            past.active_runs = max(int(past.active.any()), dice.choice([0, 0, 0, 0, 1, 2]))
        past.wiped_id = dice.choice([0, 0, 5])
        for _ in range(dice.choice([0, 0, 0, 1, 2]) if trouble else 0):
            named = dice.choice(list(made.tables))
            past.barred[named] = np.array([dice.random() < trouble for _ in range(past.count)], np.bool_)
    if dice.random() < 0.5:
        state.wanted = chance_wanted(dice, made, state)
    return state


def chance_wanted(dice: random.Random, made: Project, state: State) -> dict[str, Wanted]:
    """Let backfills want stretches of some tables, some of which were built since."""
    found: dict[str, Wanted] = {}
    for key in dice.sample(list(made.tables), dice.randint(1, len(made.tables))):
        count = state.tables[key].count
        backfill, since = np.zeros(count, np.int64), np.zeros(count, np.int64)
        for number in dice.choice([[1], [1], [2, 1]]):
            low, high = sorted(dice.choices(range(count + 1), k=2))
            backfill[low:high], since[low:high] = number, dice.choice([1, 500, 3000, 6000])
        if backfill.any():
            found[key] = Wanted(backfill, since)
    return found


def chance_landing(dice: random.Random, past: TableState, index: int, depth: int, trouble: float) -> None:
    """Land a partition after what it reads, as a rule."""
    late = dice.random() < trouble
    past.landed_id[index] = depth * 100 + dice.randint(1, 99) + (2000 if late else 0)
    early = dice.random() < trouble
    past.as_of[index] = max(
        int(past.landed_id[index]) - dice.choice([1, 50, 300]) if early else depth * 100, 1
    )
    past.blocked[index] = dice.random() < trouble
    past.code[index] = UNKNOWN_CODE if dice.random() < trouble else dice.choice([0, 0, 0, 1])


def chance_failure(dice: random.Random, past: TableState, index: int, now: datetime) -> None:
    past.failed_as_of[index] = dice.choice([50, 1000, 4000, 4000])
    past.failed_id[index] = 5000 + index
    past.failed_at[index] = now.timestamp() - dice.choice([0, 29, 30, 59, 60, 5000])
    past.failed_code[index] = dice.choice([UNKNOWN_CODE, 0, 0, 1])
    past.failures[index] = dice.choice([1, 1, 2, 3])
    past.canceled[index] = dice.random() < 0.2


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=timezone.utc)  # type: ignore[arg-type,misc]
