"""`t2 plan`: what would be requested, when and why, now or in the coming hours."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from t2.cli.options import NothingYet, find_table, format_option, load, open_ledger, project_options
from t2.errors import ConfigError

if TYPE_CHECKING:
    from t2.ledger.ledger import Ledger
    from t2.planning.forecast import Forecast, Habits
    from t2.planning.state import State
    from t2.planning.verdict import Request
    from t2.project.model import Project

FOLD = 50
EXAMPLES = """\b
Examples:
  t2 plan
  t2 plan --at 2026-12-01T08:00 --assume raw.flights=landed
  t2 plan --for 24h
  t2 plan --empty --format json"""


@click.command(epilog=EXAMPLES)
@click.option("--at", "moment", help="Plan as of a time, in UTC unless it says otherwise.  [default: now]")
@click.option(
    "--assume",
    "assumed",
    multiple=True,
    metavar="TABLE=landed|failed",
    help="Take all partitions of a table that are due for landed, or what has not landed for failed.",
)
@click.option("--for", "length", help="Simulate what comes: 90m, 24h or 7d.")
@click.option("--empty", is_flag=True, help="Plan as if nothing had ever run.")
@project_options
@format_option
def command(
    moment: str | None,
    assumed: tuple[str, ...],
    length: str | None,
    empty: bool,
    project_dir: Path,
    profiles_dir: Path | None,
    target: str | None,
    output: str,
) -> None:
    """Print what the planner would request, and ask for nothing.

    With --for, the coming hours are simulated: sources land as late as they did lately, builds take as long
    as they did, nothing fails; and each table's next landing is predicted.
    """
    from t2.planning.planner import plan

    project = load(project_dir, profiles_dir, target)
    now = _moment(moment)
    ledger = NothingYet() if empty else open_ledger(project)
    ledger.follow()
    state = _assume(project, ledger.state(project, now), now, assumed)
    if length is None:
        requests = plan(project, state, now).requests
        if output == "json":
            click.echo(
                json.dumps({"at": _iso(now), "requests": [_as_json(one) for one in requests]}, indent=2)
            )
        else:
            _print([_as_text(one) for one in requests], "nothing would be requested")
        return
    found = _forecast(project, ledger, state, now, length)
    if output == "json":
        click.echo(json.dumps(_forecast_json(project, found, now), indent=2))
    else:
        _print_forecast(project, found, now)


def _moment(text: str | None) -> datetime:
    from t2.project.config import wall_time

    if text is None:
        return datetime.now(timezone.utc)
    try:
        moment = wall_time(text)
    except ValueError:
        raise ConfigError(f"--at is {text!r}; expected a time such as 2026-12-01T08:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _assume(project: Project, state: State, now: datetime, assumed: Iterable[str]) -> State:
    """Return the state as if tables had landed or failed."""
    from t2.planning.assume import failed, landed

    for text in assumed:
        name, _, word = text.partition("=")
        key = find_table(project, name, sources=True)
        if word not in ("landed", "failed") or (word == "failed" and key in project.sources):
            hint = "a source can only be landed" if key in project.sources else None
            raise ConfigError(f"--assume is {text!r}; expected TABLE=landed or TABLE=failed", hint=hint)
        version = getattr(project.node(key), "code_version", "")
        state = (landed if word == "landed" else failed)(state, key, version, now)
    return state


def _forecast(
    project: Project, ledger: Ledger | NothingYet, state: State, now: datetime, length: str
) -> Forecast:
    from t2.planning.forecast import forecast
    from t2.project.config import DURATION, duration

    try:
        seconds = duration(length)
    except (ValueError, TypeError):
        raise ConfigError(f"--for is {length!r}; expected {DURATION}") from None
    return forecast(project, state, now, now + timedelta(seconds=seconds), _habits(project, ledger, state))


def _habits(project: Project, ledger: Ledger | NothingYet, state: State) -> Habits:
    """Return how long things took lately."""
    from t2.ledger.durations import habits
    from t2.planning.forecast import Habits

    return Habits() if isinstance(ledger, NothingYet) else habits(ledger.paces(project), project, state)


def _as_json(request: Request) -> dict[str, Any]:
    return {
        "tables": list(request.tables),
        "first": request.first,
        "last": request.last,
        "partitions": request.partitions,
        "why": request.why,
        "backfill": request.backfill or None,
        "priority": request.priority,
    }


def _as_text(request: Request) -> str:
    span = request.first or ""
    if request.first != request.last:
        span = f"{request.first} to {request.last}, {request.partitions} partitions"
    return f"{', '.join(request.tables)}{f' {span}' if span else ''} ({request.why})"


def _print(lines: list[str], nothing: str) -> None:
    for line in lines[:FOLD]:
        click.echo(line)
    if len(lines) > FOLD:
        click.echo(f"and {len(lines) - FOLD} more; --format json prints all")
    if not lines:
        click.echo(nothing)


def _forecast_json(project: Project, found: Forecast, now: datetime) -> dict[str, Any]:
    return {
        "at": _iso(now),
        "until": _iso(found.plan.now),
        "requests": [
            {
                "at": _epoch(one.at),
                "starts": _epoch(one.starts),
                "ends": _epoch(one.ends),
                **_as_json(one.request),
            }
            for one in found.requests
        ],
        "landings": [
            {"table": key, "partition": _label(project, key, index), "at": _epoch(at)}
            for key, landings in found.landings.items()
            for index, at in landings
        ],
    }


def _print_forecast(project: Project, found: Forecast, now: datetime) -> None:
    _print(
        [f"{_epoch(one.starts)[11:19]}  {_as_text(one.request)}" for one in found.requests],
        "nothing will be requested",
    )
    click.echo("")
    rows = [("TABLE", "LANDS NEXT", "AT", "LANDINGS")]
    for key in project.tables:
        landings = found.landings.get(key, ())
        if landings:
            index, at = landings[0]
            rows.append((key, _label(project, key, index) or "whole", _epoch(at)[:16], str(len(landings))))
        else:
            rows.append((key, "-", "-", "0"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _label(project: Project, key: str, index: int) -> str | None:
    from t2.planning.grid import Grid

    partitioning = project.node(key).partitioning
    return Grid.of(partitioning).key(index) if partitioning else None


def _epoch(epoch: float) -> str:
    return _iso(datetime.fromtimestamp(epoch, timezone.utc))


def _iso(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).isoformat(timespec="seconds")
