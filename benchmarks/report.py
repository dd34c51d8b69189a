"""The JSON document that every benchmark writes: figures, and the machine and versions they come from."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = {
    "dagster": "dagster",
    "dagster-dbt": "dagster-dbt",
    "dbt-core": "dbt-core",
    "duckdb": "duckdb",
    "t2": "t2",
}


@dataclass(frozen=True)
class Figure:
    """One line of the table: what T2 and the stock set-up took, lower is better.

    `t2` or `stock` is None where there is no counterpart (`note` says why). `detail` holds the samples.
    """

    name: str
    title: str
    unit: str
    t2: float | None
    stock: float | None
    note: str = ""
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Return how many times T2's value the stock value is."""
        return round(self.stock / self.t2, 2) if self.t2 and self.stock else None


@dataclass(frozen=True)
class Settings:
    """What the command line asked for; `work` holds the generated projects between benchmarks."""

    quick: bool
    work: Path


Benchmark = Callable[[Settings], Iterable[Figure]]


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def document(figures: Iterable[Figure], quick: bool) -> dict[str, Any]:
    """Return the whole document."""
    return {
        "quick": quick,
        "machine": machine(),
        "versions": {name: version(name) for name in PACKAGES},
        "figures": [{**asdict(figure), "ratio": figure.ratio} for figure in figures],
    }


def run(benchmark: Benchmark, doc: str | None) -> None:
    """Run a benchmark from the command line: print its figures, write them to `--json FILE`."""
    from benchmarks.table import markdown

    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0].rpartition(": ")[0])
    parser.add_argument("--quick", action="store_true", help="small projects: under two minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("build/benchmarks"),
        help="where generated projects are kept",
    )
    options = parser.parse_args()
    # A benchmark that is ended ends the processes that it measures.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    result = document(benchmark(Settings(options.quick, options.work.resolve())), options.quick)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    print(markdown(result))
