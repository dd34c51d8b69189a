"""Completes the plans of runs whose launch was cut off.

Dagster adds a run and then, event by event, what it is going to build. A launch that is killed in between is
finished later, by the next tick, without those events: nobody would know that its partitions are being built,
and the planner would request them once more.
"""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg

from t2.definitions._dagster.events import report_planned
from t2.definitions._dagster.tags import (
    BACKFILL_TAG,
    PARTITION_RANGE_END_TAG,
    PARTITION_RANGE_START_TAG,
    PARTITION_TAG,
)
from t2.ledger.ledger import Ledger
from t2.planning.grid import Grid
from t2.project.model import Project


class Launches:
    """Compares each active run, once, with what the ledger knows that it is to build."""

    def __init__(self, project: Project, ledger: Ledger) -> None:
        self._project = project
        self._ledger = ledger
        self._seen: set[str] = set()
        self.backfilling: set[str] = set()  # the active runs of Dagster's own backfills

    def complete(self, instance: dg.DagsterInstance) -> bool:
        """Report the partitions that active runs are to build and no event tells of; tell if there were."""
        active = self._ledger.active_run_ids()
        fresh = active - self._seen
        if not fresh:
            return False
        known = self._ledger.planned(fresh)
        runs = [run for run_id in fresh if (run := instance.get_run_by_id(run_id))]
        self.backfilling &= active
        self.backfilling |= {run.run_id for run in runs if BACKFILL_TAG in run.tags}
        missing = [
            (run, table, partition)
            for run in runs
            for table, partition in self._targets(run)
            if (run.run_id, table, partition) not in known
        ]
        for run, table, partition in missing:
            report_planned(instance, run, dg.AssetKey(table.split("/")), partition or None)
        self._seen = active
        return bool(missing)

    def _targets(self, run: dg.DagsterRun) -> Iterator[tuple[str, str]]:
        """Yield the (table, partition) pairs of this project that a run selects."""
        for key in run.asset_selection or ():
            table = self._project.tables.get("/".join(key.path))
            if table is None:
                continue
            if table.partitioning is None:
                yield table.key, ""
                continue
            single = run.tags.get(PARTITION_TAG)
            first = run.tags.get(PARTITION_RANGE_START_TAG, single)
            last = run.tags.get(PARTITION_RANGE_END_TAG, single)
            if first and last:
                grid = Grid.of(table.partitioning)
                for label in grid.keys(range(grid.index(first), grid.index(last) + 1)):
                    yield table.key, label
