"""From "the input landed" to "the table landed": python benchmarks/landing.py.

The clock starts when the materialization of the newest hour of a source is in Dagster's event log and ends
with the materialization of the same hour of the table that reads it. Both sides are whole process families on
the same data: `t2 dev`, and Dagster's daemon with its code server, `@dbt_assets` and an automation condition
sensor.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from benchmarks.families import Family, Landing, stock_family, t2_family
from benchmarks.measure import Cost, environment, median, process, samples
from benchmarks.projects import prepared, shape
from benchmarks.report import Figure, Settings, run
from benchmarks.stock import DBT, flags
from benchmarks.synthetic import PROBE, Flavour

Start = Callable[[Path, Path, float], AbstractContextManager[Family]]


def figures(settings: Settings) -> Iterator[Figure]:
    """Yield what dbt's command line takes, and the time to land."""
    size = shape(settings)
    yield from _dbt_figures(prepared(size, "stock", settings.work), f"({size.models:,} models)")
    yield _landing_figure(settings)


def _dbt_figures(project: Path, of: str) -> Iterator[Figure]:
    unchanged, changed = dbt_runs(project, times=2)
    names = {"dbt_run": "nothing to parse", "dbt_run_vars": "another partition's variables"}
    for (name, what), costs in zip(names.items(), (unchanged, changed), strict=True):
        title, note = f"`dbt run` of one model, {what} {of}", "T2 starts no dbt process"
        yield Figure(name, title, "s", None, median(costs).wall, note, {"stock": samples(costs)})


def _landing_figure(settings: Settings) -> Figure:
    size, patience = shape(settings), 120 if settings.quick else 900
    families: dict[Flavour, Start] = {"t2": t2_family, "stock": stock_family}
    times = {"t2": 3, "stock": 1} if settings.quick else {"t2": 9, "stock": 2}
    taken = {}
    for flavour, start in families.items():
        project = prepared(size, flavour, settings.work)
        with tempfile.TemporaryDirectory() as home:
            taken[flavour] = landings(start(project, Path(home), patience), times[flavour], patience)
    return Figure(
        name="landing",
        title=f"Input landed to table landed ({size.models:,} models)",
        unit="s",
        t2=statistics.median(landing.total for landing in taken["t2"]),
        stock=statistics.median(landing.total for landing in taken["stock"]),
        detail={flavour: [asdict(landing) for landing in all_] for flavour, all_ in taken.items()},
    )


def dbt_runs(project: Path, times: int) -> tuple[list[Cost], list[Cost]]:
    """Run the probe's view and table by dbt's command line: with the same variables, with others."""
    command = [*DBT, "run", "--select", f"stg_{PROBE}", PROBE, *flags(project)]
    hours = [["--vars", f'{{"start": "2000-01-01", "end": "2000-01-01 0{hour}:00:00"}}'] for hour in range(9)]
    process([*command, *hours[0]], env=environment())
    unchanged = [process([*command, *hours[0]], env=environment()) for _ in range(times)]
    changed = [process([*command, *hours[n + 1]], env=environment()) for n in range(times)]
    return unchanged, changed


def landings(family: AbstractContextManager[Family], times: int, patience: float) -> list[Landing]:
    """Land the source `times` times at moments that have nothing to do with anybody's interval.

    A first landing waits until everything is up and does not count.
    """
    rng = random.Random(1)
    taken = []
    with family as running:
        for _ in range(times + 1):
            taken.append(running.land(patience))
            print(f"t2: landed after {taken[-1].total:.1f} s", file=sys.stderr, flush=True)
            running.settle(patience)
            time.sleep(rng.uniform(2, 9))
    return taken[1:]


if __name__ == "__main__":
    run(figures, __doc__)
