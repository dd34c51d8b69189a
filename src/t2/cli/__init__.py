"""The `t2` command. Each command is a module of this package, imported when it is asked for."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from t2.errors import T2Error

COMMANDS = {
    "init": "Add T2 to a dbt project, or make a new one.",
    "deps": "Install the project's dbt packages and T2's own.",
    "parse": "Print what T2 understands of the project.",
    "dev": "Run everything for local work: web server, daemon, code location, worker.",
    "status": "Print every table's outcome: landed, running, waiting, failed.",
    "why": "Say why a table or partition is not up to date.",
    "plan": "Print what would be built, now or in the coming hours.",
    "check": "Run the checks of a table again, without building it.",
    "materialize": "Build a table, or a table and all that reads it.",
    "sql": "Ask the embedded warehouse, or copy it, also while t2 dev has it open.",
    "backfill": "Build partitions again: preview, progress, cancel, resume, retry.",
    "pause": "Build tables no more for a while, with a reason.",
    "resume": "End the pause of tables.",
    "reset": "Forget what was built: remove the local Dagster storage.",
}


class _Commands(click.Group):
    """A group that knows its commands' help without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"t2.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean 't2 {near[0]}'?" if near else ""
            raise click.UsageError(f"There is no command 't2 {args[0]}'.{hint}", ctx) from error


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="t2", message="t2 %(version)s")
@click.option("--debug", is_flag=True, help="Print the traceback of an error.")
@click.pass_context
def group(ctx: click.Context, debug: bool) -> None:
    """Keep dbt tables up to date: every partition as soon as its inputs are ready, and no sooner.

    Exit codes: 0 fine, 1 found something (a failed table, a partition that waits), 2 could not do it.
    """
    ctx.obj = {"debug": debug}


def main(argv: list[str] | None = None) -> Any:
    """Run the command line; errors of T2's own are printed without a traceback and exit with 2."""
    try:
        return group.main(args=argv, prog_name="t2", standalone_mode=True)
    except T2Error as error:
        if "--debug" in (argv if argv is not None else sys.argv):
            raise
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
