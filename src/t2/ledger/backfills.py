"""Backfills: what people asked to be built again, and what became of it.

A request names partitions. What became of it follows from the ledger: a partition is done when a build of it
landed that is `as_of` the range's `since` or later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from t2.planning.choosing import Chosen, keys, ranges
from t2.planning.grid import Grid
from t2.planning.planner import Plan
from t2.planning.progress import Progress, lengths, progress
from t2.planning.state import Wanted
from t2.project.model import Project

BackfillState: TypeAlias = Literal["running", "done", "failed", "canceled"]


@dataclass(frozen=True)
class Span:
    """Partitions `first` to `last` of a table ("" where it has none), to be built as of `since` or later."""

    table: str
    first: str
    last: str
    since: int = 0


@dataclass(frozen=True)
class Backfill:
    """One request. `asked` is what was asked for as its author wrote it; times are epoch seconds.

    `counts`: what had become of its partitions when it ended, by state; empty while it runs.
    """

    id: int
    state: BackfillState
    asked: str
    asked_by: str
    asked_at: float
    reason: str
    ended_at: float | None
    counts: Mapping[str, int]
    seq: int
    spans: tuple[Span, ...]

    def wanted(self, project: Project, lengths: Mapping[str, int]) -> dict[str, Wanted]:
        """Return what it wants, over the first partitions of each table; what is not there is left out."""
        found: dict[str, Wanted] = {}
        for span in self.spans:
            length = lengths.get(span.table, 0)
            if span.table not in project.tables or not length:
                continue
            zeros = np.zeros(length, np.int64)
            here = found.setdefault(span.table, Wanted(zeros, zeros.copy()))
            partitioning = project.tables[span.table].partitioning
            low, high = 0, 0
            if partitioning is not None:
                low, high = Grid.of(partitioning).indices([span.first, span.last]).tolist()
            if low >= 0 and high >= 0 and (partitioning is None) == (span.first == ""):
                here.backfill[low : high + 1] = self.id
                here.since[low : high + 1] = span.since
        return found

    def progress(self, plan: Plan) -> dict[str, Progress]:
        """Return what became of it so far, by table in dependency order.

        What was canceled with it has not failed but is left.
        """
        parts = progress(plan, self.wanted(plan.project, lengths(plan)))
        return {key: self._with_canceled(plan, key, part) for key, part in parts.items()}

    def _with_canceled(self, plan: Plan, key: str, part: Progress) -> Progress:
        if self.state != "canceled":
            return part
        canceled = part.failed & plan.state.tables[key].canceled
        return replace(part, failed=part.failed & ~canceled, left=part.left | canceled)

    def again(self, plan: Plan) -> tuple[list[Span], list[Span]]:
        """Return its ranges anew: what failed and is to be built from now on, and the rest as it was."""
        parts = self.progress(plan)
        failed, rest = [], []
        for key, wanted in self.wanted(plan.project, lengths(plan)).items():
            here, part = wanted.backfill > 0, parts[key]
            # Also what failed and is tried again by itself: a person's request starts the count anew.
            tried = (plan.state.tables[key].failed_id > 0) & ~part.done & ~part.running
            anew = part.failed | (here & tried)
            failed += [Span(key, *keys(plan.project, key, *span)) for span in ranges(anew)]
            for since in sorted(set(wanted.since[here & ~anew].tolist())):
                same = here & ~anew & (wanted.since == since)
                rest += [Span(key, *keys(plan.project, key, *span), since) for span in ranges(same)]
        return failed, rest


def wanted(backfills: Sequence[Backfill], project: Project, lengths: Mapping[str, int]) -> dict[str, Wanted]:
    """Return what running backfills want together; where two want the same, the newer request counts."""
    found: dict[str, Wanted] = {}
    for backfill in backfills:
        for key, fresh in backfill.wanted(project, lengths).items():
            old = found.setdefault(key, fresh)
            newer = fresh.since >= old.since
            found[key] = Wanted(
                np.where(newer & (fresh.backfill > 0), fresh.backfill, old.backfill),
                np.maximum(fresh.since, old.since),
            )
    return {key: both for key, both in found.items() if both.backfill.any()}


def that_wants(backfills: Sequence[Backfill], plan: Plan, chosen: Chosen) -> Backfill | None:
    """Return the first backfill that wants all that was chosen; None if nothing was, or none does."""
    if not any(flags.any() for flags in chosen.values()):
        return None
    for backfill in backfills:
        wants = backfill.wanted(plan.project, lengths(plan))
        left = [
            flags & ~(wants[key].backfill > 0) if key in wants else flags for key, flags in chosen.items()
        ]
        if not any(flags.any() for flags in left):
            return backfill
    return None
