"""`t2 check`: run the checks of a table again, without building it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import click

from t2.cli.options import find_partition, find_table, format_option, load, open_ledger, project_options
from t2.errors import ConfigError, NotFound

if TYPE_CHECKING:
    from t2.definitions.checks import CheckResult
    from t2.planning.state import TableState
    from t2.project.model import Project, Source, Table, Test

FOLD = 10
Span = tuple[int, int]


@click.command(
    epilog="Examples:  t2 check fct_flights_daily 2013-01-09 | t2 check stg_flights --test known_carriers"
)
@click.argument("table")
@click.argument("partition", required=False)
@click.option("--from", "start", help="Check a range: the first partition.")
@click.option("--to", "end", help="Check a range: the last partition.  [default: the newest]")
@click.option("--test", "names", multiple=True, help="Only this test; may be given several times.")
@project_options
@format_option
@click.pass_context
def command(
    ctx: click.Context,
    table: str,
    partition: str | None,
    start: str | None,
    end: str | None,
    names: tuple[str, ...],
    project_dir: Path,
    profiles_dir: Path | None,
    target: str | None,
    output: str,
) -> None:
    """Run the checks of TABLE (or a source) again on PARTITION or a range, and build nothing.

    Without a partition: on those that failed checks hold back now. A check that passes opens the gate, and
    what waited is built. Exits with 1 if a check failed that holds anything back.
    """
    from t2.definitions.checks import recheck

    project = load(project_dir, profiles_dir, target)
    key = find_table(project, table, sources=True)
    tests = _tests(project.node(key), names)
    spans = _spans(project, key, tests, (partition, start, end))
    if not spans:
        click.echo("[]" if output == "json" else f"no failed check holds back readers of {key}")
        ctx.exit(0)

    def on_run(first: str | None, last: str | None, number: int, runs: int) -> None:
        where = "" if first is None else f" {first}" if first == last else f" {first} to {last}"
        many = f"{len(tests)} check{'' if len(tests) == 1 else 's'}"
        click.echo(f"[{number}/{runs}] {key}{where}: {many} ...", err=True)

    quiet = output == "json"
    results = recheck(project, key, spans, [t.name for t in tests], on_run=None if quiet else on_run)
    click.echo(json.dumps([result.to_json() for result in results], indent=2) if quiet else render(results))
    ctx.exit(1 if any(result.blocks for result in results) else 0)


def _tests(node: Table | Source, names: Sequence[str]) -> list[Test]:
    """Return the tests with the given names, all without any."""
    if not node.tests:
        raise ConfigError(f"{node.key} has no tests", hint="add data_tests to its properties file")
    found = []
    for name in names or [test.name for test in node.tests]:
        fitting = [test for test in node.tests if name in (test.name, test.unique_id.split(".")[2])]
        if not fitting:
            near = get_close_matches(name, [test.name for test in node.tests], n=1, cutoff=0.3)
            hint = f"did you mean {near[0]!r}?" if near else None
            raise NotFound(f"{node.key} has no test {name!r}", hint=hint)
        found += fitting
    return found


def _spans(
    project: Project, key: str, tests: Sequence[Test], asked: tuple[str | None, str | None, str | None]
) -> list[Span]:
    """Return the stretches of partitions to check: those of the ones asked for that were built."""
    from t2.planning.grid import Grid

    node = project.node(key)
    past = _past(project, key)
    landed = (past.landed_id > 0).tolist()
    if not any(landed):
        raise ConfigError(f"{key} has not landed yet", hint=f"`t2 why {key}` says why")
    if node.partitioning is None:
        if any(asked):
            raise ConfigError(f"{key} is not partitioned", hint="leave the partition out")
        return [(0, 0)]
    grid = Grid.of(node.partitioning)
    newest = len(landed) - 1 - landed[::-1].index(True)
    partition, start, end = asked
    if partition and (start or end):
        raise ConfigError("a partition and --from/--to were both given", hint="use one of them")
    if end and not start:
        raise ConfigError("--to was given without --from", hint="add --from with the first partition")
    first = partition or start
    if first:
        low = find_partition(project, key, first)
        high = low if partition else find_partition(project, key, end) if end else newest
        wanted = [low <= index <= high and is_there for index, is_there in enumerate(landed)]
        if not any(wanted):
            hint = f"the newest that has is {grid.key(newest)}"
            raise ConfigError(f"{key} {first} has not landed", hint=hint)
    elif any(test.per_partition for test in tests):
        wanted = (past.shut & (past.landed_id > 0)).tolist()
    else:  # the whole table is looked at, whichever partition it counts for
        wanted = [index == newest for index in range(len(landed))]
    return list(_ranges(wanted))


def _past(project: Project, key: str) -> TableState:
    """Return what the ledger knows of one table."""
    ledger = open_ledger(project)
    ledger.follow()
    alone = replace(
        project,
        tables={key: project.tables[key]} if key in project.tables else {},
        sources={key: project.sources[key]} if key in project.sources else {},
    )
    return ledger.state(alone, datetime.now(timezone.utc)).tables[key]


def _ranges(flags: Sequence[bool]) -> Iterator[Span]:
    start = None
    for index, flag in enumerate([*flags, False]):
        if flag and start is None:
            start = index
        elif not flag and start is not None:
            yield start, index - 1
            start = None


def render(results: Sequence[CheckResult]) -> str:
    """Return one line a check and outcome, failures first; partitions with the same outcome share one."""
    lines: dict[tuple[str, str, str], list[str]] = {}
    for result in sorted(results, key=lambda result: (result.passed, not result.blocks, result.check)):
        held = "all that reads it" if result.held is None else ", ".join(result.held) or "-"
        lines.setdefault((result.check, _outcome(result), held), []).append(result.partition or "-")
    header = ("CHECK", "RESULT", "HOLDS BACK", "PARTITIONS")
    cells = [(*line, _fold(sorted(partitions), line[1])) for line, partitions in lines.items()]
    widths = [max(len(line[column]) for line in (header, *cells)) for column in range(len(header))]
    shown = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in (header, *cells)
    )
    return "\n".join(line.rstrip() for line in shown)


def _outcome(result: CheckResult) -> str:
    if result.passed:
        return "passed"
    rows = result.failed_rows
    word = "warned" if result.severity == "warn" else "failed"
    told = result.message.splitlines()[0] if result.message else ""
    return f"{word} ({told})" if rows is None else f"{word} ({rows:,} row{'' if rows == 1 else 's'})"


def _fold(partitions: Sequence[str], outcome: str) -> str:
    if outcome == "passed" and len(partitions) > 2:
        return f"{partitions[0]} to {partitions[-1]} ({len(partitions)})"
    more = f" and {len(partitions) - FOLD} more" if len(partitions) > FOLD else ""
    return ", ".join(partitions[:FOLD]) + more
