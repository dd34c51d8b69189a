"""`t2 status`: every table's outcome."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from t2.cli.options import current_plan, find_table, format_option, load, open_ledger, project_options

if TYPE_CHECKING:
    from t2.explain.status import TableStatus
    from t2.ledger.history import ActiveRun

BAD = {"failed", "blocked"}
FOLD = 10


@click.command(epilog="Example:  t2 status fct_flights_daily")
@click.argument("table", required=False)
@project_options
@format_option
@click.pass_context
def command(
    ctx: click.Context,
    table: str | None,
    project_dir: Path,
    profiles_dir: Path | None,
    target: str | None,
    output: str,
) -> None:
    """Print every table's (or one TABLE's) outcome, partitions landed of those due, and the newest.

    Exits with 1 if a table has failed or is blocked by a check.
    """
    from t2.explain.status import status

    project = load(project_dir, profiles_dir, target)
    ledger = open_ledger(project)
    rows = status(current_plan(project, ledger))
    runs = ledger.active_runs()
    if table is not None:
        key = find_table(project, table, sources=True)
        rows = [row for row in rows if row.table == key]
    if output == "json":
        runs_json = [
            {
                "run": run.run_id,
                "status": run.status,
                "tables": list(run.tables),
                "partitions": run.partitions,
            }
            for run in runs
        ]
        click.echo(json.dumps({"tables": [row.to_json() for row in rows], "runs": runs_json}, indent=2))
    else:
        click.echo(render(rows))
        click.echo("\n" + render_runs(runs))
    ctx.exit(1 if any(BAD & set(row.outcomes) for row in rows) else 0)


def render_runs(runs: Sequence[ActiveRun]) -> str:
    """Return one line a run that is queued or running; lists fold at ten."""
    if not runs:
        return "nothing runs"
    lines = [
        f"run {run.run_id[:8]} {run.status}: {', '.join(run.tables)} ({_partitions(run)})"
        for run in runs[:FOLD]
    ]
    return "\n".join([*lines, f"and {len(runs) - FOLD} more"] if len(runs) > FOLD else lines)


def render(rows: Sequence[TableStatus]) -> str:
    """Return the rows as a plain table, readable without colour."""
    header = ("TABLE", "KIND", "GRAIN", "OUTCOME", "LANDED", "NEWEST", "OTHERS")
    cells = [
        (
            row.table,
            row.kind,
            row.grain,
            row.outcome,
            f"{row.landed}/{row.due}",
            row.newest or "-",
            ", ".join(f"{count} {name}" for name, count in row.outcomes.items() if name != "landed") or "-",
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in (header, *cells)) for column in range(len(header))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in (header, *cells)
    )
    return "\n".join(line.rstrip() for line in lines)


def _partitions(run: ActiveRun) -> str:
    count = -(-run.partitions // max(len(run.tables), 1))  # the ledger counts (table, partition)
    return f"{count} partition{'' if count == 1 else 's'}"
