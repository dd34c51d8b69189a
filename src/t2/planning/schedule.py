"""When a table's policy lets its partitions be built: at once, after a tick, or only when a person asks."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
from cronsim import CronSim

from t2.planning.grid import Bools, Grid
from t2.planning.state import TableState
from t2.project.model import Cron, Table

MINUTE = timedelta(minutes=1)


def last_tick(cron: Cron, now: datetime) -> float:
    """Return the newest tick that is not later than `now` (aware), in epoch seconds.

    Where the clocks change, a tick at a skipped time comes right after the gap, one at a doubled time once.
    """
    return _ticks(cron, _minute(now))[0]


def next_tick(cron: Cron, now: datetime) -> float:
    """Return the first tick after `now` (aware), in epoch seconds."""
    return _ticks(cron, _minute(now))[1]


def allowed(table: Table, past: TableState, now: datetime) -> Bools:
    """Return which partitions the policy lets be built if their inputs are ready.

    After a tick those are the partitions that were over by then (or, if open, had begun) and the ones that
    last landed before it.
    """
    policy = table.automation
    if not isinstance(policy, Cron):
        return np.full(past.count, policy == "eager")
    tick = last_tick(policy, now)
    over: Bools = np.ones(past.count, np.bool_)
    if table.partitioning is not None:
        grid = Grid.of(table.partitioning)
        edges = grid.boundaries(past.count)
        over = (edges[:-1] if grid.open else edges[1:]) <= tick
    return np.where(past.landed_id > 0, past.landed_at < tick, over)


def ticked(table: Table, past: TableState, now: datetime) -> bool:
    """Whether a tick alone is a reason to build a table without partitions again."""
    policy = table.automation
    if not isinstance(policy, Cron) or table.partitioning is not None:
        return False
    return bool(past.landed_at[0] < last_tick(policy, now))


def _minute(now: datetime) -> datetime:
    return now.astimezone(timezone.utc).replace(second=0, microsecond=0)


# Ticks are at whole minutes, so all instants of a minute have the same ones.
@lru_cache(maxsize=4096)
def _ticks(cron: Cron, minute: datetime) -> tuple[float, float]:
    zone = ZoneInfo(cron.timezone)
    before = next(CronSim(cron.expression, (minute + MINUTE).astimezone(zone), reverse=True))
    after = next(CronSim(cron.expression, minute.astimezone(zone)))
    return before.timestamp(), after.timestamp()
