"""Time fresh processes: wall and CPU seconds, the children's included."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Cost:
    """What one process took, in seconds."""

    wall: float
    cpu: float


class CommandError(RuntimeError):
    """A measured command failed; the message ends with what it printed."""


def environment(**extra: str) -> dict[str, str]:
    """Return the environment of every measured process: no telemetry, this repository and its dbt found."""
    return {
        **os.environ,
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "PYTHONWARNINGS": "ignore",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        **extra,
    }


def process(command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Cost:
    """Run a command to its end and return its cost; CommandError if it exits with anything but 0."""
    before, start = os.times(), time.perf_counter()
    pipe = subprocess.PIPE
    done = subprocess.run(command, env=env, cwd=cwd, stdout=pipe, stderr=subprocess.STDOUT, check=False)
    wall, after = time.perf_counter() - start, os.times()
    if done.returncode:
        output = done.stdout.decode(errors="replace")[-4000:]
        raise CommandError(f"{' '.join(command)} exited with {done.returncode}:\n{output}")
    children = (after.children_user + after.children_system) - (before.children_user + before.children_system)
    return Cost(round(wall, 3), round(children, 3))


def module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs one of our modules in this interpreter."""
    return [sys.executable, "-m", name, *arguments]


def median(costs: Sequence[Cost]) -> Cost:
    """Return the median of the walls and that of the CPU times."""
    return Cost(statistics.median(c.wall for c in costs), statistics.median(c.cpu for c in costs))


def samples(costs: Sequence[Cost]) -> list[dict[str, Any]]:
    """Return the costs for a figure's detail."""
    return [{"wall": cost.wall, "cpu": cost.cpu} for cost in costs]
