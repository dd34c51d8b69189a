"""What became of a backfill, worked out from a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from t2.planning.grid import Bools
from t2.planning.planner import Plan
from t2.planning.state import Wanted
from t2.planning.verdict import FAILED, PAUSED, QUEUED, RUNNING

STATES = ("done", "running", "failed", "left")


@dataclass(frozen=True)
class Progress:
    """One table's partitions in a backfill, each in one state.

    `done`: it landed since the request. `running`: a run that has not ended builds it. `failed`: the newest
    attempt since the request failed and is not tried again by itself, or a check blocks it. `left`: the rest.
    """

    done: Bools
    running: Bools
    failed: Bools
    left: Bools

    def counts(self) -> dict[str, int]:
        """Return how many partitions are in each state."""
        return {state: int(getattr(self, state).sum()) for state in STATES}


def progress(plan: Plan, wanted: Mapping[str, Wanted]) -> dict[str, Progress]:
    """Return what became of what a backfill wants, by table in dependency order."""
    found = {}
    for key in plan.project.tables:
        if key not in wanted:
            continue
        past, outcome = plan.state.tables[key], plan.outcomes[key]
        here, since = wanted[key].backfill > 0, wanted[key].since
        built = here & (past.as_of >= since)
        running = here & ((outcome == RUNNING) | (outcome == QUEUED))
        done = built & past.landed & ~running
        tried = (past.failed_id > 0) & (past.failed_as_of >= since)
        given_up = (outcome == FAILED) | ~plan.settled[key].busy
        failed = here & ~done & ~running & ((tried & given_up) | (built & past.blocked))
        found[key] = Progress(done, running, failed, here & ~done & ~running & ~failed)
    return found


def totals(parts: Mapping[str, Progress]) -> dict[str, int]:
    """Return the counts of all tables together."""
    sums = dict.fromkeys(STATES, 0)
    for part in parts.values():
        for state, count in part.counts().items():
            sums[state] += count
    return sums


def has_ended(plan: Plan, parts: Mapping[str, Progress]) -> bool:
    """Whether nothing that is left will be built without anybody's help; what is paused only rests."""
    return not any(
        bool((part.running | ((part.left | part.failed) & _moves(plan, key))).any())
        for key, part in parts.items()
    )


def _moves(plan: Plan, key: str) -> Bools:
    moves: Bools = plan.settled[key].busy | (plan.outcomes[key] == PAUSED)
    return moves


def lengths(plan: Plan) -> dict[str, int]:
    """Return how many partitions each table has."""
    return {key: past.count for key, past in plan.state.tables.items()}
