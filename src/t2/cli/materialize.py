"""`t2 materialize`: build a table, or a table and all that reads it, from the command line."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from t2.cli.options import find_partition, find_table, format_option, load, project_options
from t2.errors import ConfigError

if TYPE_CHECKING:
    from t2.planning.selection import Step
    from t2.project.model import Project


@click.command(
    epilog="Examples:  t2 materialize dim_airports | t2 materialize fct_flights_daily+ --partition 2013-01-09"
)
@click.argument("table", metavar="TABLE[+]")
@click.option("--partition", help="Build this partition.")
@click.option("--from", "start", help="Build a range: the first partition.")
@click.option("--to", "end", help="Build a range: the last partition.  [default: the newest that is due]")
@project_options
@format_option
@click.pass_context
def command(
    ctx: click.Context,
    table: str,
    partition: str | None,
    start: str | None,
    end: str | None,
    project_dir: Path,
    profiles_dir: Path | None,
    target: str | None,
    output: str,
) -> None:
    """Build TABLE now, in this process; TABLE+ builds what reads it, too.

    The runs appear in Dagster's UI like any other. Exits with 1 if a run failed; what landed stays.
    """
    from t2.planning.selection import steps

    now = datetime.now(timezone.utc)
    project = load(project_dir, profiles_dir, target)
    key = find_table(project, table.removesuffix("+"))
    span = _span(project, key, (partition, start, end), now)
    todo = steps(project, key, span, now, downstream=table.endswith("+"))
    results = _run(project, todo, quiet=output == "json")
    if output == "json":
        click.echo(json.dumps(results, indent=2))
    ctx.exit(0 if all(result["success"] for result in results) else 1)


def _span(
    project: Project, key: str, asked: tuple[str | None, str | None, str | None], now: datetime
) -> tuple[int, int]:
    """Return the partition numbers that were asked for; every contradiction is an error."""
    from t2.planning.grid import Grid

    partition, start, end = asked
    partitioning = project.tables[key].partitioning
    if partitioning is None:
        if any(asked):
            raise ConfigError(f"{key} is not partitioned", hint="leave --partition, --from and --to out")
        return (0, 0)
    if partition and (start or end):
        raise ConfigError("--partition and --from/--to were both given", hint="use one of them")
    if end and not start:
        raise ConfigError("--to was given without --from", hint="add --from with the first partition")
    grid = Grid.of(partitioning)
    due = grid.count(now)
    if not due:
        raise ConfigError(f"no partition of {key} is over yet; the first is {grid.key(0)}")
    first = partition or start
    if not first:
        raise ConfigError(
            f"{key} has {partitioning.grain.value} partitions, and none was asked for",
            hint=f"add --partition {grid.key(due - 1)}, or --from and --to",
        )
    low = _due(project, key, first, due)
    high = low if partition else _due(project, key, end, due) if end else due - 1
    if high < low:
        raise ConfigError(f"the range from {start} to {end} holds no partition", hint="swap --from and --to")
    return (low, high)


def _due(project: Project, key: str, partition: str, due: int) -> int:
    """Return the number of a partition; ConfigError unless it is one of the `due` whose window is over."""
    from t2.planning.grid import Grid

    index = find_partition(project, key, partition)
    partitioning = project.tables[key].partitioning
    if index >= due and partitioning is not None:
        grid = Grid.of(partitioning)
        raise ConfigError(
            f"{key} {partition} is not over yet: its window ends {grid.window(index)[1]:%Y-%m-%d %H:%M %Z}",
            hint=f"the newest partition that is over is {grid.key(due - 1)}",
        )
    return index


def _run(project: Project, todo: list[Step], *, quiet: bool) -> list[dict[str, object]]:
    from t2.definitions.runs import LocalRuns

    results: list[dict[str, object]] = []
    broken: set[str] = set()
    with LocalRuns(project) as runs:
        for number, step in enumerate(todo, 1):
            name = _name(project, step)
            upstreams = {up.key for table in step.tables for up in project.tables[table].upstreams}
            if culprits := sorted(broken & upstreams):
                error = f"skipped: {', '.join(culprits)} has not landed"
                results.append({"step": name, "success": False, "error": error})
                if not quiet and broken.isdisjoint(step.tables):  # one line a table
                    click.echo(f"skipped {', '.join(step.tables)}: {', '.join(culprits)} has not landed")
                broken.update(step.tables)
                continue
            if not quiet:
                click.echo(f"[{number}/{len(todo)}] {name} ...", err=True)
            results.append({"step": name, **runs.execute(step)})
            if not results[-1]["success"]:
                broken.update(step.tables)
            if not quiet:
                click.echo(_line(results[-1]))
    return results


def _name(project: Project, step: Step) -> str:
    from t2.planning.grid import Grid

    partitioning = project.tables[step.tables[0]].partitioning
    if partitioning is None:
        return ", ".join(step.tables)
    grid = Grid.of(partitioning)
    span = (
        grid.key(step.first)
        if step.first == step.last
        else f"{grid.key(step.first)} to {grid.key(step.last)}"
    )
    return f"{', '.join(step.tables)} {span}"


def _line(result: dict[str, object]) -> str:
    if result["success"]:
        return f"landed  {result['step']}  {result['seconds']} s"
    return f"failed  {result['step']}\n        " + str(result["error"]).replace("\n", "\n        ")
