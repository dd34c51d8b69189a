"""How long a code location takes to load, its dbt project parsed before: python benchmarks/load.py.

Each sample is a fresh process from the start of the interpreter to the repository's snapshot, which is what
a code server does before it answers. T2 has its cache in `target/t2`, stock dagster-dbt its `manifest.json`.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.measure import Cost, environment, median, module, process, samples
from benchmarks.projects import prepared, shape
from benchmarks.report import Figure, Settings, run
from benchmarks.synthetic import Flavour, Shape

LOADS = 5
WARM_UPS = 1


def figures(settings: Settings) -> Iterator[Figure]:
    """Yield the wall and the CPU time of a load."""
    size = shape(settings)
    ours, theirs = (loads(settings, size, flavour) for flavour in ("t2", "stock"))
    title = f"Load the code location ({size.models:,} models, {size.tests:,} tests)"
    t2, stock = median(ours), median(theirs)
    detail = {"t2": samples(ours), "stock": samples(theirs)}
    yield Figure("load_wall", title, "s", t2.wall, stock.wall, detail=detail)
    yield Figure("load_cpu", f"{title}, CPU", "s", t2.cpu, stock.cpu)


def loads(settings: Settings, size: Shape, flavour: Flavour) -> list[Cost]:
    """Load a project in fresh processes; the first one warms the file cache and does not count."""
    command = module("benchmarks.location", flavour, str(prepared(size, flavour, settings.work)))
    return [process(command, env=environment()) for _ in range(WARM_UPS + LOADS)][WARM_UPS:]


if __name__ == "__main__":
    run(figures, __doc__)
