"""What became of a backfill, as text and as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from t2.ledger.backfills import Backfill
    from t2.planning.planner import Plan

FOLD = 10
HEAD = ("TABLE", "DONE", "RUNNING", "FAILED", "LEFT")


def counts_of(plan: Plan, backfill: Backfill) -> Mapping[str, int]:
    """Return how many partitions are in each state.

    What it was when the backfill came to its end stays true, whatever is built later; one that was canceled
    had runs that went on.
    """
    from t2.planning.progress import totals

    ended = backfill.state in ("done", "failed")
    return backfill.counts if ended else totals(backfill.progress(plan))


def summary(plan: Plan, backfill: Backfill) -> dict[str, Any]:
    """Return a backfill as data, its tables left out."""
    return {
        "id": backfill.id,
        "state": backfill.state,
        "asked": backfill.asked,
        "asked_by": backfill.asked_by,
        "asked_at": _moment(backfill.asked_at),
        "reason": backfill.reason,
        "ended_at": _moment(backfill.ended_at) if backfill.ended_at else None,
        "counts": dict(counts_of(plan, backfill)),
    }


def progress_json(plan: Plan, backfill: Backfill) -> dict[str, Any]:
    """Return a backfill and its tables as data."""
    from t2.planning.choosing import keys, ranges

    tables = [
        {
            "table": key,
            **part.counts(),
            "failed_partitions": [keys(plan.project, key, *span) for span in ranges(part.failed)],
        }
        for key, part in backfill.progress(plan).items()
    ]
    return {**summary(plan, backfill), "tables": tables}


def progress_text(plan: Plan, backfill: Backfill) -> str:
    """Return a line a table, and what failed."""
    from t2.planning.choosing import keys, ranges

    counts = counts_of(plan, backfill)
    lines = [
        f"backfill {backfill.id} {backfill.state}: "
        f"{counts['done']} of {sum(counts.values())} partitions done",
        f"  {backfill.asked}   by {backfill.asked_by}, {_moment(backfill.asked_at)}",
    ]
    lines += [f"  {backfill.reason}"] if backfill.reason else []
    parts = backfill.progress(plan)
    rows = [(key, *(str(count) for count in part.counts().values())) for key, part in parts.items()]
    lines.append(columns([HEAD, *rows]))
    for key, part in parts.items():
        stretches = ranges(part.failed)
        lines += [f"failed: {key} {span_text(*keys(plan.project, key, *s))}" for s in stretches[:FOLD]]
        if len(stretches) > FOLD:
            lines.append(f"and {len(stretches) - FOLD} more of {key}")
    if counts["failed"] and backfill.state != "running":
        lines.append(f"`t2 backfill retry {backfill.id}` builds what failed once more")
    return "\n".join(lines)


def span_text(first: str, last: str) -> str:
    """Return a range of partitions in words."""
    return (first or "whole") if first == last else f"{first} to {last}"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as a table whose columns are as wide as their widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _moment(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, timezone.utc).isoformat(timespec="seconds")
