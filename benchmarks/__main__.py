"""Run all benchmarks, one after the other: python -m benchmarks [--quick] [--json FILE]."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from benchmarks import backfill, day, landing, load, planner, tick
from benchmarks.report import Figure, Settings, run


def figures(settings: Settings) -> Iterator[Figure]:
    """Yield the figures of every benchmark."""
    for benchmark in (load, tick, planner, landing, day, backfill):
        print(f"t2: {benchmark.__name__}", file=sys.stderr, flush=True)
        yield from benchmark.figures(settings)


if __name__ == "__main__":
    run(figures, __doc__)
