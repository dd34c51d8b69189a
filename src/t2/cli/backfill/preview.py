"""What a backfill would do, as a table and as data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2.cli.backfill.progress import FOLD, columns, span_text

if TYPE_CHECKING:
    from t2.ledger.durations import Pace
    from t2.planning.preview import Part, Preview
    from t2.project.model import Project

HEAD = ("TABLE", "PARTITIONS", "RUNS", "AT ONCE", "TIME", "ROWS", "BYTES", "RANGE")


def preview_text(project: Project, found: Preview, paces: Mapping[str, Pace]) -> str:
    """Return a line a table, what is left out and why, what follows, and the sums."""
    rows = [_row(project, part, paces[part.table]) for part in found.parts if part.partitions]
    lines = [columns([HEAD, *rows])] if rows else ["nothing to build"]
    for part in found.parts:
        lines += [f"left out: {count:,} of {part.table}: {why}" for why, count in part.left_out.items()]
    if not found.partitions:
        return "\n".join(lines)
    if found.followers:
        lines.append(f"built again by themselves when it is over: {', '.join(found.followers[:FOLD])}")
        if len(found.followers) > FOLD:
            lines.append(f"and {len(found.followers) - FOLD} more")
    lines.append(
        f"{found.partitions:,} partitions in {found.runs:,} runs, "
        f"about {_duration(_seconds(project, found, paces))} if nothing else runs; "
        "nothing else is built, and current partitions go first"
    )
    return "\n".join(lines)


def _row(project: Project, part: Part, pace: Pace) -> tuple[str, ...]:
    from t2.ledger.durations import seconds_alone
    from t2.planning.choosing import keys

    table = project.tables[part.table]
    spans = [span_text(*keys(project, part.table, *span)) for span in part.ranges]
    more = f" and {len(spans) - 2} more" if len(spans) > 2 else ""
    return (
        part.table,
        f"{part.partitions:,}",
        f"{part.runs:,}",
        str(table.runs_at_once),
        _duration(seconds_alone(table, part, pace)),
        _amount(pace.rows, part.partitions),
        _amount(pace.bytes, part.partitions),
        ", ".join(spans[:2]) + more,
    )


def preview_json(project: Project, found: Preview, paces: Mapping[str, Pace]) -> dict[str, Any]:
    """Return the same as data; times in seconds, None where nothing is known."""
    from t2.ledger.durations import seconds_alone
    from t2.planning.choosing import keys

    return {
        "partitions": found.partitions,
        "runs": found.runs,
        "seconds": _seconds(project, found, paces),
        "followers": list(found.followers),
        "tables": [
            {
                "table": part.table,
                "partitions": part.partitions,
                "runs": part.runs,
                "concurrency": project.tables[part.table].runs_at_once,
                "seconds": seconds_alone(project.tables[part.table], part, paces[part.table]),
                "rows": _times(paces[part.table].rows, part.partitions),
                "bytes": _times(paces[part.table].bytes, part.partitions),
                "ranges": [list(keys(project, part.table, *span)) for span in part.ranges],
                "left_out": dict(part.left_out),
            }
            for part in found.parts
        ],
    }


def _seconds(project: Project, found: Preview, paces: Mapping[str, Pace]) -> float | None:
    from t2.ledger.durations import seconds_in_all
    from t2.runtime.home import home_of, run_slots

    return seconds_in_all(project, found.parts, paces, run_slots(home_of(Path(project.root))))


def _times(value: float | None, count: int) -> int | None:
    return None if value is None else round(value * count)


def _amount(value: float | None, count: int) -> str:
    return "-" if value is None else f"{round(value * count):,}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
