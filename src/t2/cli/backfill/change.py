"""`t2 backfill cancel`, `resume` and `retry`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from t2.cli.options import current_plan, load, open_written_ledger, project_options
from t2.errors import ConfigError


@click.command(epilog="Examples:  t2 backfill cancel 3 | t2 backfill cancel 3 --now")
@click.argument("number", type=int, metavar="ID")
@click.option("--now", is_flag=True, help="End the runs that it has started, too.")
@project_options
def cancel(number: int, now: bool, project_dir: Path, profiles_dir: Path | None, target: str | None) -> None:
    """Request no more runs of a backfill; those that have started go on to their end."""
    from t2.planning.progress import totals

    project = load(project_dir, profiles_dir, target)
    ledger = open_written_ledger(project)
    while True:
        backfill = ledger.backfills.get(number)
        if backfill.state != "running":
            raise ConfigError(f"backfill {number} does not run: it is {backfill.state}")
        counts = totals(backfill.progress(current_plan(project, ledger)))
        if ledger.backfills.end(backfill, "canceled", counts, time.time()):
            break
    click.echo(
        f"backfill {number} is canceled; {counts['done']} of {sum(counts.values())} partitions are done"
    )
    if now:
        from t2.definitions.cancel import cancel_runs

        ended: list[str] = []
        click.echo("its runs are ended ...", err=True)
        cancel_runs(project, {"t2/backfill": str(number)}, on_run=ended.append)
        click.echo(f"{len(ended)} run{'' if len(ended) == 1 else 's'} canceled")


@click.command(epilog="Example:  t2 backfill resume 3")
@click.argument("number", type=int, metavar="ID")
@project_options
def resume(number: int, project_dir: Path, profiles_dir: Path | None, target: str | None) -> None:
    """Go on with a canceled or failed backfill: all that is not done, what failed included."""
    _again(number, project_dir, profiles_dir, target, only_failed=False)


@click.command(epilog="Example:  t2 backfill retry 3")
@click.argument("number", type=int, metavar="ID")
@project_options
def retry(number: int, project_dir: Path, profiles_dir: Path | None, target: str | None) -> None:
    """Build what failed in a backfill once more, and what waited for it."""
    _again(number, project_dir, profiles_dir, target, only_failed=True)


def _again(
    number: int, project_dir: Path, profiles_dir: Path | None, target: str | None, *, only_failed: bool
) -> None:
    from t2.planning.progress import totals

    project = load(project_dir, profiles_dir, target)
    ledger = open_written_ledger(project)
    while True:
        plan = current_plan(project, ledger)
        backfill = ledger.backfills.get(number)
        counts = totals(backfill.progress(plan))
        failed, left = counts["failed"], counts["failed"] + counts["left"]
        if not (failed if only_failed else left):
            raise ConfigError(f"nothing of backfill {number} {'failed' if only_failed else 'is left'}")
        if backfill.state == "running" and not only_failed:
            raise ConfigError(f"backfill {number} runs already")
        if ledger.backfills.renew(backfill, *backfill.again(plan)):
            break
    click.echo(f"backfill {number} runs again: {failed} partitions that failed, {left} in all")
