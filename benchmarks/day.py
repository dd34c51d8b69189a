"""A day of a large company, hour after hour as fast as it goes: python benchmarks/day.py.

2,000 tables with 12,000 tests, hourly and daily, about 4,000 materializations, every test on every partition.
All sources land hour 0; when every hourly table has landed it, they land hour 1, and so on; the day is over
when the daily tables and the reports have landed. The last hour of the day before lands first, so that views
and hourly tables exist, as on any other day. Beside it: an hour of the hourly tables with
`@dbt_assets` and with `dbt build`, and the statements of T2's day from a script with nothing around them.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
import sqlalchemy as sa

import t2
from benchmarks.bare import bare_seconds
from benchmarks.day_log import Parts, parts_of
from benchmarks.families import Family, t2_family, wait_for
from benchmarks.measure import CommandError
from benchmarks.processes import Watch
from benchmarks.report import Figure, Settings, run
from benchmarks.stock_day import Slice, stock_slice
from benchmarks.synthetic import Shape, load_raw, source_names, write
from t2.ledger.ledger import Ledger
from t2.ledger.schema import partitions
from t2.ledger.storage import locate
from t2.project.model import Grain, Project, Table

PATIENCE = 3600


@dataclass(frozen=True)
class Day:
    """What T2 took, in seconds: the whole day, each hour of it, and the parts of all its runs."""

    since: float  # epoch seconds
    wall: float
    hours: list[float]
    parts: Parts
    cpu: dict[str, float]
    peak_gib: float


def shape(settings: Settings) -> Shape:
    """Return the size: yesterday is the day, all tables begin the day before."""
    begin = datetime.now(timezone.utc).date() - timedelta(days=2)
    if settings.quick:
        return Shape(models=60, tests=360, sources=6, begin=begin, mix="day")
    return Shape(begin=begin, mix="day")


def figures(settings: Settings) -> Iterator[Figure]:
    """Yield the day, what a materialization takes on each side, and the day's bare SQL."""
    size, hours = shape(settings), 3 if settings.quick else 24
    root = prepared(size, settings.work)
    with tempfile.TemporaryDirectory() as home, t2_family(root, Path(home), PATIENCE) as family:
        ours = day(size, t2.load_project(root), family, hours)
        bare = bare_seconds(family.instance, t2.load_project(root), size, ours.since)
    done = ours.parts
    work = f"{done.materializations:,} materializations, {done.checks:,} test results"
    title = f"{hours} hours of {size.models:,} models: {work}"
    yield Figure("day", title, "s", ours.wall, None, detail={"t2": asdict(ours)})
    yield Figure("day_bare", "The same beside its bare SQL", "s", ours.wall, bare, "bare SQL from a script")
    landed = statistics.quantiles(done.ready_to_landed, n=20)
    yield Figure("day_landed", "Ready to landed in that day, median", "s", landed[9], None)
    yield Figure("day_landed_p95", "Ready to landed in that day, 95th percentile", "s", landed[18], None)
    beside = sum(seconds for kind, seconds in ours.cpu.items() if kind != "warehouse")
    each = round(beside / done.materializations * 1000, 1)
    yield Figure("day_cpu", "CPU beside the warehouse's, a materialization with its tests", "ms", each, None)
    yield Figure("day_memory", "Most memory that all processes held", "GiB", ours.peak_gib, None)
    yield from _slice_figures(statistics.median(ours.hours), stock_slice(size, settings.work))


def _slice_figures(hour: float, stock: Slice) -> Iterator[Figure]:
    title = f"An hour of {stock.tables} hourly tables with all tests"
    yield Figure("day_assets", f"{title}; `@dbt_assets`", "s", hour, stock.dbt_assets)
    yield Figure("day_build", f"{title}; `dbt build`", "s", hour, stock.dbt_build)


def prepared(size: Shape, work: Path) -> Path:
    """Return T2's project, parsed, with the raw rows of the day and nothing built."""
    root = work / f"day-{size.label}"
    if not (root / "dbt_project.yml").exists():
        write(size, "t2", root)
    for file in root.glob("warehouse.duckdb*"):
        file.unlink()
    load_raw(size, root, size.begin, days=2)
    t2.load_project(root)
    return root


def day(size: Shape, project: Project, family: Family, hours: int) -> Day:
    """Work off a day and tell what it took."""
    hourly = [key for key, table in project.tables.items() if _grain(table) is Grain.HOUR]
    later = [key for key, table in project.tables.items() if _grain(table) is not Grain.HOUR]
    later = [key for key in later if not project.tables[key].is_view]
    ledger = Ledger(locate(Path(family.instance.root_directory)))
    _land(family, ledger, size, hourly, f"{size.begin}-23:00")
    family.settle(PATIENCE)
    the_day = size.begin + timedelta(days=1)
    since, head = time.time(), ledger.head()
    with Watch(project.root) as watch:
        started = time.monotonic()
        took = [
            _land(family, ledger, size, hourly, f"{the_day}-{hour:02d}:00", head) for hour in range(hours)
        ]
        if hours == 24:
            for label in (str(the_day), ""):
                wanted = [key for key in later if (_grain(project.tables[key]) is None) == (not label)]
                _wait(family, ledger, wanted, label, head)
            family.settle(PATIENCE)
        wall = time.monotonic() - started
    family.settle(PATIENCE)
    return Day(
        since=since,
        wall=round(wall, 2),
        hours=took,
        parts=parts_of(family.instance, project, since),
        cpu=watch.cpu,
        peak_gib=watch.peak_gib,
    )


def _land(
    family: Family, ledger: Ledger, size: Shape, hourly: list[str], label: str, since: int = 0
) -> float:
    """Land an hour of every source; return the seconds until all hourly tables have landed it."""
    before = time.monotonic()
    land(family.instance, size, label)
    _wait(family, ledger, hourly, label, since)
    took = round(time.monotonic() - before, 3)
    print(f"t2: {label} after {took:.1f} s", file=sys.stderr, flush=True)
    return took


def land(instance: dg.DagsterInstance, size: Shape, partition: str) -> None:
    """Report an hour of every source, as a loader does."""
    for name in source_names(size):
        event = dg.AssetMaterialization(dg.AssetKey(["raw", name]), partition=partition)
        instance.report_runless_asset_event(event)


def _grain(table: Table) -> Grain | None:
    return table.partitioning.grain if table.partitioning else None


def _wait(family: Family, ledger: Ledger, keys: list[str], partition: str, since: int) -> None:
    """Wait until a partition of all these tables has landed; CommandError if a run has failed."""
    query = (
        sa.select(sa.func.count())
        .select_from(partitions)
        .where(partitions.c.partition == partition, partitions.c.event_id > since)
        .where(partitions.c.table_key.in_(keys))
    )
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])

    def landed() -> bool:
        if runs := family.instance.get_runs(failed, limit=1):
            raise CommandError(f"run {runs[0].run_id} has failed")
        with ledger.engine.connect() as connection:
            return connection.scalar(query) == len(keys)

    wait_for(landed, PATIENCE, f"{len(keys)} tables to land {partition}", every=0.5)


if __name__ == "__main__":
    run(figures, __doc__)
