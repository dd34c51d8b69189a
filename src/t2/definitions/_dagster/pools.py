"""Dagster's pools."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import dagster as dg
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.instance.config import PoolGranularity
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from sqlalchemy.exc import IntegrityError

from t2.definitions import slots
from t2.definitions._dagster.sqlite import index_transaction, is_sqlite

# How often a run that waits for a slot looks whether limits have changed or runs have died that hold slots.
POOLS_SECONDS = 10.0


class Pools(InstanceConcurrencyContext):
    """Dagster's pools as one run uses them.

    Stock Dagster queues every ready step for a full pool and looks after each of them every 1 to 15 s; a slot
    that got free stands empty for as long. Here one step a pool is in the queue, which Dagster keeps in the
    order of priority and age, and `claim` may be called as often as one likes: it costs a query.
    """

    def __init__(self, instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
        super().__init__(instance, run)
        self._queued: dict[str, str] = {}
        self._storage: Any = instance.event_log_storage
        per_run = self._pool_config.pool_granularity == PoolGranularity.RUN
        self._is_quick = is_sqlite(instance) and not per_run

    def set_defaults(self, names: Iterable[str], limits: Mapping[str, Callable[[], int]]) -> None:
        """Store a limit for those of a run's pools that have none; `limits` are by the name of the pool."""
        default = self._pool_config.default_pool_limit
        for name in dict.fromkeys(names):
            info = self.get_pool_info(name)
            if default is not None and (info is None or (info.from_default and info.limit != default)):
                self._storage.initialize_concurrency_limit_to_default(name)
                self._sync_pools()
            elif info is None and name in limits:
                # Another run may do so at the same moment.
                with suppress(IntegrityError):
                    self._storage.set_concurrency_slots(name, limits[name]())
                self._sync_pools()

    def claim(self, concurrency_key: str, step_key: str, step_priority: int = 0) -> bool:
        """Whether the step has a slot of the pool now, or needs none."""
        if self._queued.setdefault(concurrency_key, step_key) != step_key:
            return False
        claimed = self._claim(concurrency_key, step_key, step_priority)
        if claimed:
            del self._queued[concurrency_key]
        return claimed

    def _claim(self, pool: str, step_key: str, priority: int) -> bool:
        if step_key in self._pending_claims:
            if time.time() > self._pending_timeouts[step_key]:
                self._sync_pools()  # the limit may have been lifted
                self._free_ended()
            elif not self._storage.can_claim_from_pending(pool, self._run_id, step_key):
                return False
            self._pending_timeouts[step_key] = 0.0
        if not self._is_quick or self.get_pool_info(pool) is None:
            return super().claim(pool, step_key, priority)
        with index_transaction(self._instance) as connection:
            claimed = slots.claim(connection, pool, self._run_id, step_key, self._run_priority + priority)
        if claimed:
            self._pending_claims.discard(step_key)
            self._claims.add(step_key)
        else:
            self._pending_claims.add(step_key)
            self._pending_timeouts[step_key] = time.time() + POOLS_SECONDS
        return claimed

    def _free_ended(self) -> None:
        """Free the slots of runs that were killed, which Dagster's daemon does if it was told to only."""
        ids = list(self._storage.get_concurrency_run_ids())
        ended = dg.RunsFilter(run_ids=ids, statuses=FINISHED_STATUSES)
        for run in self._instance.get_runs(ended):
            self._storage.free_concurrency_slots_for_run(run.run_id)

    def free_step(self, step_key: str) -> None:
        """Give the slot of a step back."""
        if self._is_quick and step_key in self._claims:
            with index_transaction(self._instance) as connection:
                slots.free(connection, self._run_id, step_key)
            self._claims.remove(step_key)
        else:
            super().free_step(step_key)
