"""`t2 backfill list` and `t2 backfill show`."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from t2.cli.backfill.progress import (
    FOLD,
    counts_of,
    progress_json,
    progress_text,
    summary,
)
from t2.cli.options import current_plan, format_option, load, open_written_ledger, project_options

WATCH_SECONDS = 2.0


@click.command("list", epilog="Example:  t2 backfill list --format json")
@project_options
@format_option
def list_(project_dir: Path, profiles_dir: Path | None, target: str | None, output: str) -> None:
    """List the backfills, newest first; lists fold at ten."""
    project = load(project_dir, profiles_dir, target)
    ledger = open_written_ledger(project)
    plan = current_plan(project, ledger)
    backfills = ledger.backfills.all()
    if output == "json":
        click.echo(json.dumps([summary(plan, backfill) for backfill in backfills], indent=2))
        return
    if not backfills:
        click.echo("there are no backfills")
    for backfill in backfills[:FOLD]:
        row = summary(plan, backfill)
        why = f"  ({backfill.reason})" if backfill.reason else ""
        click.echo(
            f"{backfill.id:>4}  {backfill.state:<8}  {row['counts']['done']}/{sum(row['counts'].values())}  "
            f"{row['asked_at'][:16]}  {backfill.asked_by}  {backfill.asked}{why}"
        )
    if len(backfills) > FOLD:
        click.echo(f"and {len(backfills) - FOLD} more")


@click.command(epilog="Example:  t2 backfill show 3 --watch")
@click.argument("number", type=int, metavar="ID")
@click.option("--watch", is_flag=True, help="Look again every two seconds until it is over.")
@project_options
@format_option
@click.pass_context
def show(
    ctx: click.Context,
    number: int,
    watch: bool,
    project_dir: Path,
    profiles_dir: Path | None,
    target: str | None,
    output: str,
) -> None:
    """Show the progress of a backfill, table by table. Exits with 1 if partitions of it failed."""
    project = load(project_dir, profiles_dir, target)
    ledger = open_written_ledger(project)
    last = ""
    while True:
        plan = current_plan(project, ledger)
        backfill = ledger.backfills.get(number)
        text = (
            json.dumps(progress_json(plan, backfill), indent=2)
            if output == "json"
            else progress_text(plan, backfill)
        )
        if text != last:
            click.echo(text if not last else f"\n{text}")
            last = text
        if not watch or backfill.state != "running":
            break
        time.sleep(WATCH_SECONDS)
    ctx.exit(1 if counts_of(plan, backfill)["failed"] else 0)
