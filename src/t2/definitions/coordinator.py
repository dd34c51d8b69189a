"""Dagster's queue, in which backfills that were started on its pages keep to `backfill.concurrency`.

In dagster.yaml:

    run_coordinator:
      module: t2.definitions.coordinator
      class: T2RunCoordinator
      config:
        max_concurrent_runs: 4

Dagster's own backfills submit all their runs at once. Each gets a tag that says how many runs of its table
may be in progress, by which Dagster's tag concurrency limits hold the others back, and a priority below
everything else's. Those of `t2 backfill` get the same tag, so that both count together. One slot of the queue
is never a backfill's. With Dagster's QueuedRunCoordinator instead, they work without these limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import dagster as dg

from t2.definitions._dagster.code_servers import asset_metadata
from t2.definitions._dagster.runs import QueuedRunCoordinator
from t2.definitions._dagster.tags import BACKFILL_TAG, PRIORITY_TAG
from t2.planning.requests import BACKFILL_PRIORITY

CONCURRENCY = "t2/concurrency"
# Every run of a backfill has this tag; its value is the id, a number if it is one of `t2 backfill`.
BACKFILL = "t2/backfill"
AT_MOST = "t2/at_most_"
# More runs of one table at once than this are not limited.
HIGHEST_LIMIT = 64


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
        """Tag a run of a backfill, and queue it."""
        run = context.dagster_run
        backfill = run.tags.get(BACKFILL, run.tags.get(BACKFILL_TAG))
        if backfill is not None:
            keys = run.asset_selection or ()
            tags = limits(keys, lambda key: asset_metadata(context.workspace, key, CONCURRENCY))
            tags |= {BACKFILL: backfill, PRIORITY_TAG: str(BACKFILL_PRIORITY)}
            missing = {name: value for name, value in tags.items() if name not in run.tags}
            self._instance.add_run_tags(run.run_id, missing)
        return super().submit_run(context)


def limits(keys: Iterable[dg.AssetKey], concurrency: Callable[[dg.AssetKey], Any]) -> dict[str, str]:
    """Return the tags that limit a run: of tables with the same limit, the first one counts."""
    found: dict[str, str] = {}
    for key in sorted(keys):
        limit = concurrency(key)
        if isinstance(limit, int) and limit <= HIGHEST_LIMIT:
            found.setdefault(f"{AT_MOST}{limit}", key.to_user_string())
    return found
