"""How a tick of the planner grows with tables and with history: python benchmarks/planner.py.

Projects of 10 layers, 3 parents a table: hourly tables over one year, daily ones over five, reports. The
planner's state is made in memory, so that a tick is the planner alone (`tick.py` has the ledger with it): the
first one, one where nothing happened, one after a source landed, one after all of them did. Beside it, stock
Dagster evaluates the eager conditions of the same assets after the same events.
"""

from __future__ import annotations

import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from benchmarks.report import Figure, Settings, run
from t2.planning.grid import Grid
from t2.planning.planner import plan
from t2.planning.state import State, TableState
from t2.project.model import Backfill, Grain, Partitioning, Project, Source, Table, Upstream

LAYERS = 10
PARENTS = 3
SOURCES = 40
SHARES = {"hour": 0.3, "day": 0.6}  # the rest are reports without partitions
YEAR = 365
Measure = Callable[[int, float], dict[str, float]]
# Up to so many tables stock Dagster is measured, too: its ticks take minutes beyond.
STOCK_TABLES = 2500
TICKS = 3


def figures(settings: Settings) -> Iterator[Figure]:
    """Yield ticks by number of tables with the whole history, then by length of history."""
    sizes = [100, 500] if settings.quick else [500, 2500, 10_000]
    for tables in sizes:
        yield from _figures(tables, 1.0, stock=tables <= STOCK_TABLES)
    for share in (0.25, 0.5):
        yield from _figures(sizes[1], share, stock=False)


def _figures(tables: int, history: float, *, stock: bool) -> Iterator[Figure]:
    ours = _alone(t2_ticks, tables, history)
    theirs = _alone(stock_ticks, tables, history) if stock else {}
    of = f"{tables:,} tables, {history * YEAR:.0f} days of hours, {history * 5:.2g} years of days"
    titles = {"cold": "First", "idle": "Idle", "one": "One source landed:", "all": "All sources landed:"}
    for name, title in titles.items():
        yield Figure(
            name=f"{name}_{tables}_{history:g}",
            title=f"{title} tick ({of}), CPU",
            unit="s",
            t2=ours[name],
            stock=theirs.get(name),
            note="" if stock else "stock was measured at fewer tables",
            detail={"t2": ours, "stock": theirs},
        )


def _alone(
    measure: Callable[[int, float], dict[str, float]], tables: int, history: float
) -> dict[str, float]:
    """Measure in a fresh process, so that memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (tables, history))


def t2_ticks(tables: int, history: float) -> dict[str, float]:
    """Return the CPU seconds of each kind of tick, and the most memory in MB."""
    now = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)
    project = make_project(tables, history, now)
    state = everything_landed(project, now)
    found: dict[str, float] = {"partitions": sum(past.count for past in state.tables.values())}
    before = _memory()

    def timed(name: str, state: State, last: Any) -> Any:
        costs, made = [], None
        for _ in range(1 if name == "cold" else TICKS):
            started = time.process_time()
            made = plan(project, state, now, last=last)
            costs.append(time.process_time() - started)
        found[name] = round(float(np.median(costs)), 4)
        return made

    last = timed("cold", state, None)
    assert not last.requests
    timed("idle", state, last)
    sources = list(project.sources)
    one = timed("one", landed_again(state, sources[:1]), last)
    every = timed("all", landed_again(state, sources), last)
    assert one.requests
    assert every.requests
    return {**found, "state_mb": before, "memory_mb": _memory()}


def make_project(tables: int, history: float, now: datetime) -> Project:
    """Return a project of that size; the same size gives the same project."""
    dice = random.Random(1)
    days = {Grain.HOUR: YEAR * history, Grain.DAY: 5 * YEAR * history}
    cuts = {grain: _cut(grain, now - timedelta(days=length)) for grain, length in days.items()}
    sources = {f"raw/s{n}": _source(n, cuts[Grain.HOUR if n % 3 else Grain.DAY]) for n in range(SOURCES)}
    layers: list[list[str]] = [list(sources)]
    found: dict[str, Table] = {}
    for layer in range(LAYERS):
        here = []
        for number in range(tables // LAYERS):
            key = f"m/t{layer}_{number}"
            parents = dice.sample(layers[-1], PARENTS - 1) + dice.sample(dice.choice(layers), 1)
            kind = dice.random()
            grain = Grain.HOUR if kind < SHARES["hour"] else Grain.DAY
            # An hour that reads a day waits for the whole of it; so hourly tables come before daily ones.
            grain = Grain.DAY if layer >= LAYERS // 2 else grain
            whole = layer == LAYERS - 1 and kind > SHARES["day"]
            found[key] = _table(key, None if whole else cuts[grain], parents)
            here.append(key)
        layers.append(here)
    return Project("p", "", "", "", "duckdb", "", "", "", found, sources)


def everything_landed(project: Project, now: datetime) -> State:
    """Return the state in which all is up to date."""
    state = State({}, {"v1": 0})
    tables = {}
    for node in project.nodes():
        count = Grid.of(node.partitioning).count(now) if node.partitioning else 1
        past = TableState.empty(count)
        past.landed_id[:] = np.arange(state.cursor + 1, state.cursor + 1 + count)
        past.as_of[:] = state.cursor
        past.landed_at[:] = now.timestamp() - 3600
        past.code[:] = 0
        state.cursor += count
        tables[node.key] = past
    return replace(state, tables=tables)


def landed_again(state: State, keys: list[str]) -> State:
    """Return the state after the newest partition of each of these landed once more."""
    tables = dict(state.tables)
    for number, key in enumerate(keys, 1):
        landed_id = tables[key].landed_id.copy()
        landed_id[-1] = state.cursor + number
        tables[key] = replace(tables[key], landed_id=landed_id)
    return replace(state, tables=tables, cursor=state.cursor + len(keys))


def stock_ticks(tables: int, history: float) -> dict[str, float]:
    """Return the same of declarative automation: the first tick sees the whole history."""
    import dagster as dg

    from benchmarks._dagster import Automation
    from t2.definitions.partitions import partitions_def

    now = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)
    project = make_project(tables, history, now)
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = [
        dg.AssetSpec(key.split("/"), partitions_def=partitions_def(source.partitioning))
        for key, source in project.sources.items()
    ]
    for key, table in project.tables.items():
        deps = [dg.AssetKey(upstream.key.split("/")) for upstream in table.upstreams]
        assets.append(
            dg.asset(
                key=key.split("/"),
                deps=deps,
                partitions_def=partitions_def(table.partitioning),
                automation_condition=dg.AutomationCondition.eager(),
            )(lambda: None)
        )
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as home, dg.DagsterInstance.local_temp(home) as instance:
        automation = Automation(dg.Definitions(assets), instance)
        automation.land_everything()

        def timed(name: str) -> None:
            started = time.process_time()
            automation.tick(datetime.now(timezone.utc))
            found[name] = round(time.process_time() - started, 3)

        timed("cold")
        timed("idle")
        for name, chosen in (("one", list(project.sources)[:1]), ("all", list(project.sources))):
            for key in chosen:
                cut = partitions_def(project.sources[key].partitioning)
                newest = cut.get_last_partition_key() if cut else None
                event = dg.AssetMaterialization(key.split("/"), partition=newest)
                instance.report_runless_asset_event(event)
            timed(name)
    return {**found, "memory_mb": _memory()}


def _cut(grain: Grain, begin: datetime) -> Partitioning:
    return Partitioning(grain, begin.replace(tzinfo=None, hour=0), "at")


def _source(number: int, partitioning: Partitioning) -> Source:
    name = f"s{number}"
    return Source(f"raw/{name}", f"source.p.{name}", name, "raw", None, "raw", name, "s.yml", partitioning)


def _table(key: str, partitioning: Partitioning | None, parents: list[str]) -> Table:
    schema, name = key.split("/")
    return Table(
        key=key,
        unique_id=f"model.p.{name}",
        name=name,
        schema=schema,
        database=None,
        kind="model",
        materialized="partitioned" if partitioning else "table",
        relation=name,
        file="m.sql",
        code_version="v1",
        partitioning=partitioning,
        upstreams=tuple(Upstream(parent) for parent in dict.fromkeys(parents)),
        backfill=Backfill(24, 4),
    )


def _memory() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


if __name__ == "__main__":
    run(figures, __doc__)
