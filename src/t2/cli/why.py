"""`t2 why`: the root cause of a table that is not up to date, and its owner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from t2.cli.options import (
    current_plan,
    find_partition,
    find_table,
    format_option,
    load,
    open_ledger,
    project_options,
)

if TYPE_CHECKING:
    from t2.explain.why import Answer, Cause


@click.command(epilog="Example:  t2 why fct_flights_daily 2013-01-09")
@click.argument("table")
@click.argument("partition", required=False)
@project_options
@format_option
@click.pass_context
def command(
    ctx: click.Context,
    table: str,
    partition: str | None,
    project_dir: Path,
    profiles_dir: Path | None,
    target: str | None,
    output: str,
) -> None:
    """Say why TABLE (or its PARTITION) is or is not up to date, down to the root causes and their owners.

    Without PARTITION: about the oldest partition that has not landed. Exits with 1 unless it is up to date.
    """
    from t2.explain.why import interesting, why

    project = load(project_dir, profiles_dir, target)
    key = find_table(project, table, sources=True)
    ledger = open_ledger(project)
    plan = current_plan(project, ledger)
    index = interesting(plan, key) if partition is None else find_partition(project, key, partition)
    answer = why(plan, ledger, key, index)
    click.echo(json.dumps(answer.to_json(), indent=2) if output == "json" else render(answer))
    ctx.exit(0 if answer.outcome == "landed" else 1)


def render(answer: Answer) -> str:
    """Return the sentence, then one line a root cause."""
    lines = [answer.sentence]
    if answer.causes and not (len(answer.causes) == 1 and answer.causes[0].table == answer.table):
        lines += ["", "Root causes:" if len(answer.causes) > 1 else "Root cause:"]
        for cause in answer.causes:
            owner = f" · owner: {_owner(cause)}" if cause.owner else ""
            lines.append(f"  {cause.text}{owner} · {cause.clears}")
    elif answer.causes:
        cause = answer.causes[0]
        lines += ["", f"  owner: {_owner(cause)} · {cause.clears}"]
    return "\n".join(lines)


def _owner(cause: Cause) -> str:
    """Return the owner as people call it: Dagster's prefix of a team says nothing to them."""
    return cause.owner.replace("team:", "") if cause.owner else "nobody"
