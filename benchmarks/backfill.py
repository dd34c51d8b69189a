"""A year of hours, and the days and weeks that read them, built again: python benchmarks/backfill.py.

The year's hours have all landed when `t2 dev` starts: at first the planner catches up with them by itself.
Then the raw data changes, and `t2 backfill hourly+ --all` builds everything again. That must take the runs
and statements that the configuration says, each partition once, and the tables must hold the new data.
Beside it: a slice of the same by one of Dagster's own backfills, with `@dbt_assets` and policies of the same
sizes, one run at a time, because one dbt process at a time can have the DuckDB file open.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa

import t2
from benchmarks.families import Family, t2_family, wait_for
from benchmarks.measure import CommandError, environment
from benchmarks.processes import Watch
from benchmarks.report import Figure, Settings, run
from benchmarks.stock_year import Slice, stock_slice
from benchmarks.year import STATIONS, TABLES, Calendar, load, write
from t2.ledger.ledger import Ledger
from t2.ledger.schema import partitions
from t2.ledger.storage import locate
from t2.runtime.home import prepare_home

PATIENCE = 3600


@dataclass(frozen=True)
class Work:
    """What was built, by table, and the seconds that it took."""

    partitions: Mapping[str, int]
    runs: Mapping[str, int]
    statements: Mapping[str, int]
    wall: float

    @property
    def total(self) -> int:
        """How many partitions were built."""
        return sum(self.partitions.values())


def figures(settings: Settings) -> Iterator[Figure]:
    """Yield the catch-up and the backfill of the year, and a partition of it on each side."""
    calendar, days = (Calendar(2), 1) if settings.quick else (Calendar(52), 14)
    root = settings.work / f"year-{calendar.weeks}"
    with (
        tempfile.TemporaryDirectory() as home,
        t2_family(prepared(calendar, root), Path(home), PATIENCE, lambda: land(calendar, root)) as family,
    ):
        first = catch_up(calendar, root, family)
        with Watch(str(root)) as watch:
            again = backfill(calendar, root, family)
    yield from _year_figures(calendar, first, again, {"cpu": watch.cpu, "peak_gib": watch.peak_gib})
    yield _partition_figure(again, stock_slice(calendar, days, settings.work, daily=not settings.quick))


def _year_figures(calendar: Calendar, first: Work, again: Work, used: dict[str, Any]) -> Iterator[Figure]:
    weeks = f"{calendar.weeks} weeks: {again.total:,} partitions"
    for name, how, work in (("catch_up", "caught up with", first), ("backfill", "built again", again)):
        runs, statements = sum(work.runs.values()), sum(work.statements.values())
        detail = {"t2": asdict(work), "partitions_a_second": round(work.total / work.wall, 1)}
        detail |= used if work is again else {}
        title = f"{weeks} {how} in {runs:,} runs, {statements:,} statements"
        yield Figure(name, title, "s", work.wall, None, detail=detail)


def _partition_figure(again: Work, stock: Slice) -> Figure:
    return Figure(
        "backfill_partition",
        "A partition of a backfill",
        "ms",
        round(again.wall * 1000 / again.total, 1),
        round(stock.wall * 1000 / stock.partitions, 1),
        f"stock: {stock.partitions} partitions in {stock.runs} runs of `@dbt_assets`",
        {"stock": asdict(stock)},
    )


def prepared(calendar: Calendar, root: Path) -> Path:
    """Return T2's project, parsed, with its raw data and nothing built."""
    write(calendar, "t2", root)
    load(calendar, root)
    t2.load_project(root)
    return root


def land(calendar: Calendar, root: Path) -> None:
    """Report all hours of the source."""
    key = dg.AssetKey(["raw", "events"])
    with dg.DagsterInstance.from_config(str(prepare_home(root))) as instance:
        for hour in calendar.hours:
            landed = dg.AssetMaterialization(key, partition=f"{hour:%Y-%m-%d-%H:%M}")
            instance.report_runless_asset_event(landed)


def catch_up(calendar: Calendar, root: Path, family: Family) -> Work:
    """Wait until the planner has built everything by itself; the clock starts with its first run."""
    ledger = Ledger(locate(root / ".t2"))
    wait_for(lambda: _landed(ledger) == sum(calendar.partitions.values()), PATIENCE, "the year to land")
    family.settle(PATIENCE)
    _check_amounts(root, calendar, 1)
    records = family.instance.get_run_records()
    requested = min(record.create_timestamp.timestamp() for record in records)
    wall = max(record.end_time or 0.0 for record in records) - requested
    return _built(family.instance, {record.dagster_run.run_id for record in records}, wall)


def backfill(calendar: Calendar, root: Path, family: Family) -> Work:
    """Change the raw data and build everything again; CommandError unless all is as it should be."""
    ledger = Ledger(locate(root / ".t2"))
    _t2("sql", "update raw.events set amount = 2", "--write", root=root)
    number = json.loads(_t2("backfill", "hourly+", "--all", "--yes", "--format", "json", root=root))[
        "backfill"
    ]
    wait_for(lambda: ledger.backfills.get(number).state != "running", PATIENCE, "the backfill to end")
    family.settle(PATIENCE)
    ended = ledger.backfills.get(number)
    records = family.instance.get_run_records(dg.RunsFilter(tags={"t2/backfill": str(number)}))
    wall = (ended.ended_at or 0.0) - ended.asked_at
    work = _built(family.instance, {record.dagster_run.run_id for record in records}, wall)
    expected = ("done", calendar.partitions, calendar.runs, calendar.runs)
    if (ended.state, work.partitions, work.runs, work.statements) != expected:
        raise CommandError(f"the backfill is {ended.state}: {work}; expected: {expected}")
    _check_amounts(root, calendar, 2)
    return work


def _landed(ledger: Ledger) -> int:
    """Return how many partitions the tables have; the ledger is kept by the planner."""
    query = sa.select(sa.func.count()).where(partitions.c.table_key != "raw/events")
    with ledger.engine.connect() as connection:
        return connection.scalar(query) or 0


def _built(instance: dg.DagsterInstance, run_ids: set[str], wall: float) -> Work:
    """Read from the event log what runs built; builds with the same SQL in the same run are one statement."""
    built: Counter[str] = Counter()
    runs, statements = defaultdict(set), defaultdict(set)
    for name in TABLES:
        cursor, more = None, True
        while more:
            page = instance.fetch_materializations(_key(name), limit=1000, cursor=cursor)
            cursor, more = page.cursor, page.has_more
            for record in page.records:
                if record.run_id in run_ids and (event := record.asset_materialization):
                    built[name] += 1
                    runs[name].add(record.run_id)
                    statements[name].add((record.run_id, str(event.metadata["t2/compiled_sql"].value)))
    counts = [{name: len(found[name]) for name in TABLES} for found in (runs, statements)]
    return Work(dict(built), *counts, round(wall, 2))


def _check_amounts(root: Path, calendar: Calendar, amount: int) -> None:
    """Raise CommandError unless the tables hold an event of that amount a station and hour."""
    for name in TABLES:
        [row] = json.loads(
            _t2("sql", f"select sum(amount) as s from analytics.{name}", "--format", "json", root=root)
        )
        if row["s"] != amount * STATIONS * len(calendar.hours):
            raise CommandError(f"{name} holds {row['s']}")


def _key(name: str) -> dg.AssetKey:
    return dg.AssetKey(["analytics", name])


def _t2(*arguments: str, root: Path) -> str:
    """Run a command and return what it prints."""
    program = str(Path(sys.executable).parent / "t2")
    done = subprocess.run(
        [program, *arguments, "--project-dir", str(root)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CommandError(f"t2 {' '.join(arguments)} exited with {done.returncode}:\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    run(figures, __doc__)
