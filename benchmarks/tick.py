"""What one idle tick costs, every partition of five months landed: python benchmarks/tick.py.

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
import sqlalchemy as sa

from benchmarks.measure import CommandError, Cost, median, samples
from benchmarks.projects import prepared, shape
from benchmarks.report import Figure, Settings, run
from t2.ledger.schema import partitions
from t2.planning.grid import Grid
from t2.project.model import Project

TICKS = 3


def figures(settings: Settings) -> Iterator[Figure]:
    """Yield the CPU time of an idle tick."""
    size = shape(settings)
    ours = t2_ticks(prepared(size, "t2", settings.work))
    theirs = stock_ticks(prepared(size, "stock", settings.work))
    yield Figure(
        name="tick_cpu",
        title=f"Idle tick ({size.models:,} models, 5 months of hours and days), CPU",
        unit="s",
        t2=median(ours).cpu,
        stock=median(theirs).cpu,
        detail={"t2": samples(ours), "stock": samples(theirs)},
    )


def t2_ticks(root: Path) -> list[Cost]:
    """Time idle ticks of the planner; the first one, which reads the history, does not count."""
    from t2.ledger.ledger import Ledger
    from t2.ledger.storage import locate
    from t2.planning.planner import plan
    from t2.runtime.parsing import load_project

    project, now = load_project(root), datetime.now(timezone.utc)
    with tempfile.TemporaryDirectory() as home, dg.DagsterInstance.local_temp(home):
        ledger = Ledger(locate(Path(home)))
        land_everything(ledger.engine, project, now)

        def tick() -> int:
            ledger.follow()
            return len(plan(project, ledger.state(project, now), now).requests)

        if tick():
            raise CommandError("the planner wants to build something although everything has landed")
        return [_timed(tick) for _ in range(TICKS)]


def land_everything(engine: sa.Engine, project: Project, now: datetime) -> None:
    """Write that every partition whose window is over is there, each table after what it reads."""
    nothing = {column.name: "" if isinstance(column.type, sa.Text) else 0 for column in partitions.c}
    with engine.begin() as connection:
        for position, node in enumerate(project.nodes(), 1):
            grid = Grid.of(node.partitioning) if node.partitioning else None
            row = {
                **nothing,
                "table_key": node.key,
                "event_id": position,
                "at": now.timestamp(),
                "code_version": getattr(node, "code_version", ""),
                "as_of": position - 1,
            }
            keys = grid.keys(range(grid.count(now))) if grid else [""]
            connection.execute(partitions.insert(), [{**row, "partition": key} for key in keys])


def stock_ticks(project: Path) -> list[Cost]:
    """Time idle ticks of declarative automation; the first one, which sees the history, does not count."""
    from benchmarks._dagster import Automation
    from benchmarks.stock import definitions

    with tempfile.TemporaryDirectory() as home, dg.DagsterInstance.local_temp(home) as instance:
        automation = Automation(definitions(project), instance)
        automation.land_everything()
        now = datetime.now(timezone.utc)
        automation.tick(now)
        return [_timed(lambda: automation.tick(now)) for _ in range(TICKS)]


def _timed(work: Callable[[], object]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(round(time.perf_counter() - wall, 4), round(time.process_time() - cpu, 4))


if __name__ == "__main__":
    run(figures, __doc__)
