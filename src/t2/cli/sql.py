"""`t2 sql`: ask the embedded warehouse, also while `t2 dev` has it open, or copy it."""

from __future__ import annotations

import csv
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from t2.cli.options import load, project_options
from t2.errors import ConfigError, DbtError

if TYPE_CHECKING:
    from t2.project.model import Project

Row = tuple[Any, ...]

TABLE_ROWS = 100
FETCH_ROWS = 1000


@click.command(
    epilog="Examples:  t2 sql 'select count(*) from fct_orders' | t2 sql --file report.sql --format csv"
    " | t2 sql --copy copies/shop.duckdb"
)
@click.argument("statements", metavar="[SQL]", required=False)
@click.option("--file", "file", type=click.File(), help="Read the SQL from a file; - is stdin.")
@click.option("--write", is_flag=True, help="Allow statements that write; all of them are one transaction.")
@click.option(
    "--copy",
    "copy_to",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Copy the DuckDB file to this path, for notebooks and dashboards.",
)
@click.option(
    "--format", "output", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True
)
@project_options
def command(
    statements: str | None,
    file: TextIO | None,
    write: bool,
    copy_to: Path | None,
    output: str,
    project_dir: Path,
    profiles_dir: Path | None,
    target: str | None,
) -> None:
    """Execute SQL in the project's DuckDB file and print the rows of the last statement.

    Reads one consistent state, and refuses to write without --write. Works while `t2 dev` runs, which
    nothing else can open the file beside.
    """
    if sum(given is not None for given in (statements, file, copy_to)) != 1:
        raise ConfigError("one of SQL, --file and --copy is needed", hint='for example: t2 sql "select 1"')
    project = load(project_dir, profiles_dir, target)
    if copy_to is not None:
        _copy(project, copy_to, output)
        return
    _run(project, file.read() if file is not None else str(statements), write, output)


def _copy(project: Project, target: Path, output: str) -> None:
    from t2.runtime.duckdb_access import copy_file

    with _patience():
        size = copy_file(project, target)
    if output == "json":
        click.echo(json.dumps({"copy": str(target), "bytes": size}))
    else:
        click.echo(f"copied {size / 1e6:.1f} MB to {target}")


def _run(project: Project, text: str, write: bool, output: str) -> None:
    import duckdb

    from t2.runtime.duckdb_access import cursor

    try:
        with cursor(project) as found:
            statements = duckdb.extract_statements(text)
            _check(statements)
            with _patience():
                found.execute("begin transaction" if write else "begin transaction read only")
                for statement in statements:
                    found.execute(statement.query)
            # The rows first: the end of the transaction is a statement, too.
            rows = _rows(found)
            head = list(islice(rows, TABLE_ROWS + 1)) if output == "table" else []
            _print([name for name, *_ in found.description or ()], chain(head, rows), output)
            found.execute("commit")
    except duckdb.Error as error:
        raise DbtError(str(error), hint=_hint(str(error))) from error


def _check(statements: Sequence[Any]) -> None:
    if not statements:
        raise ConfigError("there is no SQL in it")
    if any(statement.type.name == "TRANSACTION" for statement in statements):
        raise ConfigError("begin, commit and rollback are not allowed", hint="all is one transaction")


def _hint(message: str) -> str | None:
    return "add --write if this is meant to write" if "read-only mode" in message else None


def _rows(cursor: Any) -> Iterator[Row]:
    while rows := cursor.fetchmany(FETCH_ROWS):
        yield from rows


def _print(names: list[str], rows: Iterator[Row], output: str) -> None:
    if output == "json":
        click.echo(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=2, default=str))
    elif output == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)
    else:
        found = list(islice(rows, TABLE_ROWS))
        click.echo(_table(names, found))
        if next(rows, None) is not None:
            click.echo(f"only the first {TABLE_ROWS} rows; --format csv prints all of them", err=True)


def _table(names: Sequence[str], rows: Sequence[Row]) -> str:
    cells = [tuple(names), *(tuple("NULL" if value is None else str(value) for value in row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)
    return "\n".join(line.rstrip() for line in lines)


@contextmanager
def _patience() -> Iterator[None]:
    """Say what is waited for when it takes longer than a second."""
    timer = threading.Timer(1.0, lambda: click.echo("waiting for the warehouse …", err=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
