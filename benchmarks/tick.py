"""What one idle tick costs, every partition of five months landed: python -m benchmarks.tick.

T2: follow the event log, read the state of all tables, plan. Stock: read the cursor, evaluate the automation
conditions of all assets, write the cursor. Nothing has happened since the tick before.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import dagster as dg

from benchmarks.measure import Cost, median, samples
from benchmarks.projects import prepared, shape
from benchmarks.report import Figure, Settings, run


def figures(settings: Settings) -> Iterator[Figure]:
    """Yield the CPU time of an idle tick, and of the planner's part of T2's."""
    size, times = shape(settings), 3
    theirs = stock_ticks(prepared(size, "stock", settings.work), times)
    title = f"Idle tick ({size.models:,} models, 5 months of hours and days)"
    yield Figure("tick_cpu", title, "s", None, median(theirs).cpu, detail={"stock": samples(theirs)})


def stock_ticks(project: Path, times: int) -> list[Cost]:
    """Time idle ticks of declarative automation; the first one, which sees the history, does not count."""
    from benchmarks._dagster import Automation
    from benchmarks.stock import definitions

    with tempfile.TemporaryDirectory() as home, dg.DagsterInstance.local_temp(home) as instance:
        automation = Automation(definitions(project), instance)
        automation.land_everything()
        now = datetime.now(timezone.utc)
        automation.tick(now)
        return [_timed(lambda: automation.tick(now)) for _ in range(times)]


def _timed(work: Callable[[], object]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(round(time.perf_counter() - wall, 4), round(time.process_time() - cpu, 4))


if __name__ == "__main__":
    run(figures, __doc__)
