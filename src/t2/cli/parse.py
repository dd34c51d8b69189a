"""`t2 parse`: what T2 understands of the project."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from t2.cli.options import format_option, load, project_options
from t2.project.config import SECONDS

if TYPE_CHECKING:
    from t2.project.model import Partitioning, Project, Source, Table, Upstream

HEADER = ("TABLE", "MATERIALIZED", "PARTITIONS", "READS", "TESTS", "OWNER")
SHOWN = 3


@click.command(epilog="Example:  t2 parse --project-dir examples/nycflights")
@project_options
@format_option
def command(project_dir: Path, profiles_dir: Path | None, target: str | None, output: str) -> None:
    """Print every table and source as T2 understands it: partitions, upstream windows, tests, owners."""
    started = time.perf_counter()
    project = load(project_dir, profiles_dir, target)
    seconds = time.perf_counter() - started
    click.echo(
        _as_json(project) if output == "json" else f"{_as_text(project)}\n\n{_counts(project, seconds)}"
    )


def _as_json(project: Project) -> str:
    document = dataclasses.asdict(project)
    for kind in ("tables", "sources"):
        document[kind] = list(document[kind].values())
    return json.dumps(document, indent=2, default=_plain)


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _as_text(project: Project) -> str:
    lines = [HEADER]
    for node in project.nodes():
        cells = (_materialized(node), _partitions(node.partitioning), _reads(node), str(len(node.tests)))
        lines.append((node.key, *cells, ", ".join(node.owners) or "-"))
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    return "\n".join(_padded(line, widths) for line in lines)


def _padded(line: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _materialized(node: Table | Source) -> str:
    return getattr(node, "materialized", "source")


def _partitions(partitioning: Partitioning | None) -> str:
    if partitioning is None:
        return "-"
    zone = "" if partitioning.timezone == "UTC" else f" {partitioning.timezone}"
    return f"{partitioning.grain.value} from {partitioning.begin:%Y-%m-%d}{zone}"


def _reads(node: Table | Source) -> str:
    """Return the upstream windows, the nearest first."""
    upstreams = sorted(getattr(node, "upstreams", ()), key=lambda upstream: len(upstream.through))
    names = [_window(upstream) for upstream in upstreams]
    return ", ".join([*names[:SHOWN], *([f"{len(names) - SHOWN} more"] if len(names) > SHOWN else [])]) or "-"


def _window(upstream: Upstream) -> str:
    """Return what is read of an upstream, where it is not just the same time."""
    words: list[str] = [upstream.window] if upstream.window != "overlap" else []
    words += [f"lookback {upstream.lookback}"] if upstream.lookback else []
    words += [f"lookback {_length(upstream.back_seconds)}"] if upstream.back_seconds else []
    words += [f"shift {_length(upstream.shift_seconds)}"] if upstream.shift_seconds else []
    words += [] if upstream.required else [f"not required after {_length(upstream.wait_seconds)}"]
    words += [f"on update: {upstream.on_update}"] if upstream.on_update else []
    return f"{upstream.key} ({', '.join(words)})" if words else upstream.key


def _length(seconds: int) -> str:
    """Return a duration as it is written in the configuration."""
    for unit in ("d", "h", "m"):
        if seconds % SECONDS[unit] == 0 and seconds:
            return f"{seconds // SECONDS[unit]}{unit}"
    return f"{seconds}s"


def _counts(project: Project, seconds: float) -> str:
    tables = list(project.tables.values())
    partitioned = sum(table.partitioning is not None for table in tables)
    tests = sum(len(node.tests) for node in project.nodes())
    return (
        f"{len(tables)} tables ({partitioned} partitioned), {len(project.sources)} sources, {tests} tests; "
        f"dbt {project.dbt_version} on {project.adapter}, target {project.target}; {seconds:.2f} s"
    )
