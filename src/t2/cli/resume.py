"""`t2 resume`: end the pause of tables."""

from __future__ import annotations

import getpass
import json
import time
from pathlib import Path

import click

from t2.cli.options import find_tables, format_option, load, open_written_ledger, project_options
from t2.errors import ConfigError


@click.command(epilog="Examples:  t2 resume stg_flights+ | t2 resume --all")
@click.argument("tables", nargs=-1, metavar="[TABLE[+] ...]")
@click.option("--all", "everything", is_flag=True, help="All that is paused.")
@project_options
@format_option
@click.pass_context
def command(
    ctx: click.Context,
    tables: tuple[str, ...],
    everything: bool,
    project_dir: Path,
    profiles_dir: Path | None,
    target: str | None,
    output: str,
) -> None:
    """Let TABLEs be built again; what they missed follows by itself. Exits with 1 if none was paused."""
    if bool(tables) == everything:
        raise ConfigError("name tables, or give --all", hint="`t2 pause` lists what is paused")
    project = load(project_dir, profiles_dir, target)
    pauses, at = open_written_ledger(project).pauses, time.time()
    keys = list(pauses.paused(at)) if everything else find_tables(project, tables)
    resumed = pauses.resume(keys, by=getpass.getuser(), at=at)
    if output == "json":
        click.echo(json.dumps({"resumed": resumed}, indent=2))
    else:
        click.echo(f"resumed {', '.join(resumed)}" if resumed else "none of them was paused")
    ctx.exit(0 if resumed else 1)
