"""`t2 pause`: let tables rest for a while; `t2 resume` ends that."""

from __future__ import annotations

import getpass
import json
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from t2.cli.options import find_tables, format_option, load, open_written_ledger, project_options
from t2.errors import ConfigError

if TYPE_CHECKING:
    from t2.ledger.pauses import PauseRecord

EXAMPLES = """\b
Examples:
  t2 pause stg_flights+ --reason "the feed sends doubles" --for 12h
  t2 pause fct_fleet_daily --reason "warehouse migration" --until 2026-12-01T08:00
  t2 pause
  t2 pause --history --format json"""


@click.command(epilog=EXAMPLES)
@click.argument("tables", nargs=-1, metavar="[TABLE[+] ...]")
@click.option("--reason", help="Why, for whoever wonders; needed with tables.")
@click.option("--for", "length", help="How long: 30m, 12h or 7d.  [default: until `t2 resume`]")
@click.option("--until", help="When it ends: a date or time, in UTC unless it says otherwise.")
@click.option("--history", is_flag=True, help="List the pauses that are over, too.")
@project_options
@format_option
def command(
    tables: tuple[str, ...],
    reason: str | None,
    length: str | None,
    until: str | None,
    history: bool,
    project_dir: Path,
    profiles_dir: Path | None,
    target: str | None,
    output: str,
) -> None:
    """Build TABLEs no more until `t2 resume` or the time is up; TABLE+ takes what reads TABLE, too.

    Runs that have started go on. What has landed stays and is read; `t2 materialize` still builds. When the
    pause ends, everything that was missed is built. Without TABLEs it lists the pauses.
    """
    at = time.time()
    if not tables and (reason or length or until):
        raise ConfigError("no table was named", hint="t2 pause TABLE --reason ...")
    ends = _end(at, length, until)
    project = load(project_dir, profiles_dir, target)
    pauses = open_written_ledger(project).pauses
    if tables:
        if not reason:
            raise ConfigError("a pause needs a reason", hint='add --reason "..."')
        keys = find_tables(project, tables)
        pauses.pause(keys, reason=reason, by=getpass.getuser(), at=at, until=ends)
        held = {record.table: record for record in pauses.all() if record.holds(at)}
        records = [held[key] for key in keys]
    else:
        records = [record for record in pauses.all() if history or record.holds(at)]
    if output == "json":
        click.echo(json.dumps([_as_json(record, at) for record in records], indent=2))
    elif not records:
        click.echo("nothing is paused" if not history else "nothing was ever paused")
    else:
        for record in records:
            click.echo(_as_text(record, at))


def _end(at: float, length: str | None, until: str | None) -> float | None:
    """Return when the pause ends by itself, in epoch seconds."""
    from t2.project.config import DURATION, duration, wall_time

    if length and until:
        raise ConfigError("--for and --until were both given", hint="use one of them")
    try:
        if length:
            return at + duration(length)
        if not until:
            return None
        ends = wall_time(until)
    except ValueError:
        given, wanted = ("--for", DURATION) if length else ("--until", "a time such as 2026-12-01T08:00")
        raise ConfigError(f"{given} is {length or until!r}; expected {wanted}") from None
    ends = ends if ends.tzinfo else ends.replace(tzinfo=timezone.utc)
    if ends.timestamp() <= at:
        raise ConfigError(f"--until {until} is over already")
    return ends.timestamp()


def _as_json(record: PauseRecord, at: float) -> dict[str, Any]:
    return {
        "table": record.table,
        "paused": record.holds(at),
        "reason": record.reason,
        "paused_by": record.paused_by,
        "paused_at": _moment(record.paused_at),
        "until": record.until and _moment(record.until),
        "ended_by": record.ended_by,
        "ended_at": record.ended_at and _moment(record.ended_at),
    }


def _as_text(record: PauseRecord, at: float) -> str:
    text = f"{record.table} by {record.paused_by} since {_moment(record.paused_at)[:16]}"
    if record.holds(at):
        text += f" until {_moment(record.until)[:16]}" if record.until else " until it is resumed"
    elif record.ended_at:
        text += f", ended by {record.ended_by} {_moment(record.ended_at)[:16]}"
    elif record.until:
        text += f", over since {_moment(record.until)[:16]}"
    return f"{text}: {record.reason}"


def _moment(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, timezone.utc).isoformat(timespec="seconds")
