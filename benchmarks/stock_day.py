"""An hour of the day's hourly tables on the other side: with `@dbt_assets`, and with `dbt build` alone."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg

from benchmarks import stock
from benchmarks.measure import environment, process
from benchmarks.synthetic import Shape, load_raw, write

HOUR = 5
PATH = "path:models/hourly"


@dataclass(frozen=True)
class Slice:
    """Seconds for one hour of all hourly tables with their tests."""

    tables: int
    dbt_assets: float
    dbt_build: float


def stock_slice(size: Shape, work: Path) -> Slice:
    """Build one hour both ways. The project is parsed, staging is there; the hour's variables are new.

    `@dbt_assets` runs in this process: what its daemon and its run's process take is not in it.
    """
    root = _prepared(size, work)
    process([*stock.DBT, "run", "--select", "path:models/stg", *stock.flags(root)], env=environment())
    hours = [_window(size, HOUR + number) for number in range(2)]
    variables = json.dumps({"start": hours[0][0], "end": hours[0][1]})
    command = [*stock.DBT, "build", "--select", PATH, "--indirect-selection", "cautious"]
    plain = process([*command, "--vars", variables, *stock.flags(root)], env=environment()).wall
    started = time.perf_counter()
    tables = _materialize(root, hours[1][0])
    return Slice(tables, round(time.perf_counter() - started, 2), plain)


def _prepared(size: Shape, work: Path) -> Path:
    root = work / f"stock-day-{size.label}"
    if not (root / "target" / "manifest.json").exists():
        write(size, "stock", root)
        stock.prepare(root)
    for file in root.glob("warehouse.duckdb*"):
        file.unlink()
    load_raw(size, root, size.begin, days=1)
    return root


def _window(size: Shape, hour: int) -> tuple[str, str]:
    start = datetime(size.begin.year, size.begin.month, size.begin.day, hour)
    return start.strftime(stock.TIME), (start + timedelta(hours=1)).strftime(stock.TIME)


def _materialize(root: Path, start: str) -> int:
    """Materialize the hour with `@dbt_assets` and return how many tables it has."""
    definitions = stock.definitions(root)
    [models] = [one for one in definitions.assets or () if isinstance(one, dg.AssetsDefinition)]
    manifest = json.loads((root / "target" / "manifest.json").read_text())
    names = {
        node["name"]
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model"
        and node["path"].startswith("hourly/")
        and node["config"]["materialized"] != "view"
    }
    keys = [key for key in models.keys if key.path[-1] in names]
    # Else dbt runs tests that read tables of the days too, which are not there.
    os.environ["DBT_INDIRECT_SELECTION"] = "cautious"
    partition = datetime.strptime(start, stock.TIME).strftime("%Y-%m-%d-%H:%M")
    done = dg.materialize(
        [models],
        selection=keys,
        partition_key=partition,
        resources=definitions.resources,
        instance=dg.DagsterInstance.ephemeral(),
    )
    assert done.success
    return len(keys)
