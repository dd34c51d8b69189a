"""Dagster's queue, in which backfills that were started on its pages keep to `backfill.concurrency`.

In dagster.yaml:

    run_coordinator:
      module: t2.definitions.coordinator
      class: T2RunCoordinator
      config:
        max_concurrent_runs: 4

Dagster's own backfills submit all their runs at once. Each gets a tag that says how many runs of its table
may be in progress, by which Dagster's tag concurrency limits hold the others back, and a priority below
everything else's. The planner's runs of tables that are being backfilled come with that tag, so that all of
them count together. One slot of the queue is never a backfill's. With Dagster's QueuedRunCoordinator instead,
backfills work without these limits.
"""

from __future__ import annotations

from typing import Any

import dagster as dg

from t2.definitions._dagster.code_servers import asset_metadata
from t2.definitions._dagster.runs import QueuedRunCoordinator
from t2.definitions._dagster.tags import BACKFILL_TAG, PRIORITY_TAG
from t2.definitions.limits import AT_MOST, HIGHEST_LIMIT, limits
from t2.planning.requests import BACKFILL_PRIORITY

CONCURRENCY = "t2/concurrency"
# Every run of a backfill has this tag; its value is the id, a number if it is one of `t2 backfill`.
BACKFILL = "t2/backfill"


class T2RunCoordinator(QueuedRunCoordinator):
    """The queued run coordinator, with limits for backfills."""

    def get_run_queue_config(self) -> Any:
        """Return Dagster's configuration of the queue with T2's limits added."""
        config = super().get_run_queue_config()
        own: list[dict[str, Any]] = [
            {"key": f"{AT_MOST}{limit}", "value": {"applyLimitPerUniqueValue": True}, "limit": limit}
            for limit in range(1, HIGHEST_LIMIT + 1)
        ]
        if config.max_concurrent_runs > 1:
            own.append({"key": BACKFILL, "limit": config.max_concurrent_runs - 1})
        return config._replace(tag_concurrency_limits=[*config.tag_concurrency_limits, *own])

    def submit_run(self, context: Any) -> dg.DagsterRun:
        """Tag a run of one of Dagster's backfills, and queue it."""
        run = context.dagster_run
        if BACKFILL_TAG in run.tags:
            keys = run.asset_selection or ()
            tags = limits(keys, lambda key: asset_metadata(context.workspace, key, CONCURRENCY))
            tags |= {BACKFILL: run.tags[BACKFILL_TAG], PRIORITY_TAG: str(BACKFILL_PRIORITY)}
            missing = {name: value for name, value in tags.items() if name not in run.tags}
            self._instance.add_run_tags(run.run_id, missing)
        return super().submit_run(context)
