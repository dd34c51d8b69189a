"""`t2 backfill TABLE[+] ...`: show what a backfill would do, ask, and start it."""

from __future__ import annotations

import getpass
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from t2.cli.backfill.choice import Choice, choice_options
from t2.cli.backfill.preview import preview_json, preview_text
from t2.cli.backfill.progress import counts_of, summary
from t2.cli.options import current_plan, format_option, load, open_written_ledger, project_options
from t2.errors import ConfigError

if TYPE_CHECKING:
    from t2.ledger.backfills import Backfill, Span
    from t2.planning.planner import Plan
    from t2.planning.preview import Preview

EXAMPLES = """\b
Examples:
  t2 backfill fct_flights_daily+ --from 2013-01-01 --to 2013-03-31
  t2 backfill stg_flights fct_flights --partition 2013-02-08 --partition 2013-02-09 --yes
  t2 backfill fct_flights_daily --failed --dry-run
  t2 backfill list
  t2 backfill show 3 --watch
  t2 backfill cancel 3 --now"""


@click.command(epilog=EXAMPLES)
@choice_options
@click.option("--reason", default="", help="Why, for whoever reads the list later.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@project_options
@format_option
@click.pass_context
def start(
    ctx: click.Context,
    /,
    reason: str,
    yes: bool,
    dry_run: bool,
    project_dir: Path,
    profiles_dir: Path | None,
    target: str | None,
    output: str,
    **choice: Any,
) -> None:
    """Show what a backfill of TABLEs would do, ask, and start it.

    Exits with 1 if there is nothing to do or a running backfill does it already.
    """
    from t2.ledger.backfills import that_wants
    from t2.planning.preview import preview

    wanted = Choice(**choice)
    project = load(project_dir, profiles_dir, target)
    ledger = open_written_ledger(project)
    number = None
    while number is None:
        seen = ledger.backfills.seq()
        plan = current_plan(project, ledger)
        chosen = wanted.chosen(plan)
        if (same := that_wants(ledger.backfills.running(), plan, chosen)) is not None:
            _say_same(plan, same, output)
            ctx.exit(1)
        found = preview(plan, chosen, named=bool(wanted.partitions))
        paces = {part.table: ledger.pace(part.table) for part in found.parts}
        shown = preview_json(project, found, paces)
        if output == "text":
            click.echo(preview_text(project, found, paces))
        elif dry_run or not found.partitions:
            click.echo(json.dumps({"preview": shown}, indent=2))
        if dry_run or not found.partitions:
            ctx.exit(0 if found.partitions else 1)
        if not yes and (output == "json" or not click.confirm("Start it?", err=True)):
            raise ConfigError("nothing was started", hint="add --yes to start without being asked")
        by, at = getpass.getuser(), time.time()
        number = ledger.backfills.ask(
            _spans(plan, found), asked=wanted.words, asked_by=by, reason=reason, at=at, seen=seen
        )
        if number is None:
            click.echo("the backfills changed meanwhile; looking again", err=True)
    if output == "json":
        click.echo(json.dumps({"backfill": number, "preview": shown}, indent=2))
    else:
        click.echo(f"backfill {number} started; `t2 backfill show {number} --watch` follows it")


def _spans(plan: Plan, found: Preview) -> list[Span]:
    """Return the ranges of a preview as they are stored."""
    from t2.ledger.backfills import Span
    from t2.planning.choosing import keys

    return [
        Span(part.table, *keys(plan.project, part.table, *span))
        for part in found.parts
        for span in part.ranges
    ]


def _say_same(plan: Plan, backfill: Backfill, output: str) -> None:
    if output == "json":
        row = {"backfill": backfill.id, "already": summary(plan, backfill)}
        click.echo(json.dumps(row, indent=2))
        return
    counts = counts_of(plan, backfill)
    click.echo(
        f"backfill {backfill.id} does that already "
        f"({counts['done']} of {sum(counts.values())} partitions done): {backfill.asked}\n"
        f"`t2 backfill show {backfill.id} --watch` follows it, `t2 backfill cancel {backfill.id}` stops it"
    )
