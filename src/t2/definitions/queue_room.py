"""How many runs the queue gets: those that start soon, and no more.

A request that waits with the planner can be put together with others and overtaken by a more urgent one. Once
it is a run in Dagster's queue it is neither.
"""

from __future__ import annotations

from collections import Counter

import dagster as dg

# So many runs wait in the queue while all of its slots are taken: enough for every slot that gets free
# before the planner looks again.
AHEAD = 4


class QueueRoom:
    """The queue at one moment; `take` counts what is added to it."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._queued: Counter[int] = Counter()
        config = instance.get_concurrency_config().run_queue_config
        slots = config.max_concurrent_runs if config else -1
        taken = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
        # While a slot is free, whatever waits in the queue waits for something else, as a limit of its tags.
        self._full = slots >= 0 and instance.get_runs_count(dg.RunsFilter(statuses=taken)) >= slots
        if self._full:
            queued = dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])
            self._queued.update(_priority(run) for run in instance.get_runs(queued, limit=1000))

    def take(self, priority: int) -> bool:
        """Whether there is room for a run; not when enough of at least its priority wait already."""
        if self._full and sum(n for known, n in self._queued.items() if known >= priority) >= AHEAD:
            return False
        self._queued[priority] += 1
        return True


def _priority(run: dg.DagsterRun) -> int:
    try:
        return int(run.tags.get("dagster/priority", "0"))
    except ValueError:  # Dagster takes it for 0 too
        return 0
