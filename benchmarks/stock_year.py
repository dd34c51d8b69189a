"""The other side of the backfill benchmark: `@dbt_assets` with backfill policies of the same sizes."""

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DbtCliResource, dbt_assets

from benchmarks import stock
from benchmarks.families import opened, processes, wait_for
from benchmarks.measure import environment, module
from benchmarks.year import MONDAY, TABLES, TIME, Calendar, load, write

# One dbt process at a time can have the DuckDB file open.
YAML = "telemetry: {enabled: false}\nconcurrency: {runs: {max_concurrent_runs: 1}}\n"
PATIENCE = 3600


@dataclass(frozen=True)
class Slice:
    """What the first days took by one of Dagster's backfills, in seconds."""

    partitions: int
    runs: int
    wall: float


def stock_slice(calendar: Calendar, days: int, work: Path, *, daily: bool) -> Slice:
    """Build the hours of the first days and, if asked, the days; the daemon is up, the project is parsed."""
    from benchmarks._dagster import add_backfill, has_succeeded

    root = work / f"stock-year-{calendar.weeks}"
    write(calendar, "stock", root)
    load(calendar, root)
    stock.prepare(root)
    names = [f"{hour:%Y-%m-%d-%H:%M}" for hour in calendar.hours[: days * 24]]
    keys = [dg.AssetKey("hourly"), *([dg.AssetKey("daily")] if daily else [])]
    with tempfile.TemporaryDirectory() as home:
        Path(home, "dagster.yaml").write_text(YAML)
        env = environment(DAGSTER_HOME=home, BENCHMARK_PROJECT=str(root))
        daemon = module("dagster._daemon", "run", "-m", "benchmarks.stock_year_location")
        with opened(Path(home)) as instance, processes(daemon, env, Path(home)):
            log = Path(home, "log")
            wait_for(lambda: "daemons" in log.read_text(), PATIENCE, "the daemon to be up")
            started = time.monotonic()
            backfill_id = add_backfill(instance, definitions(root, calendar.end), keys, names)
            wait_for(lambda: has_succeeded(instance, backfill_id), PATIENCE, "the backfill to end")
            wall = time.monotonic() - started
            runs = instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]))
    return Slice(days * (24 + daily), runs, round(wall, 2))


def definitions(project: Path, end: date) -> dg.Definitions:
    """Return the code location of the prepared project: one `@dbt_assets` a grain."""
    warnings.simplefilter("ignore")
    manifest = json.loads((project / "target" / "manifest.json").read_text())
    start, stop = datetime(MONDAY.year, MONDAY.month, MONDAY.day), datetime(end.year, end.month, end.day)
    partitions = {
        "hourly": dg.HourlyPartitionsDefinition(start_date=start, end_date=stop),
        "daily": dg.DailyPartitionsDefinition(start_date=start, end_date=stop),
        "weekly": dg.WeeklyPartitionsDefinition(start_date=start, end_date=stop, day_offset=1),
    }
    executable = str(Path(sys.executable).parent / "dbt")
    dbt = DbtCliResource(project_dir=str(project), profiles_dir=str(project), dbt_executable=executable)
    assets = [_assets(name, manifest, partitions[name]) for name in TABLES]
    return dg.Definitions(assets=assets, resources={"dbt": dbt}, executor=dg.in_process_executor)


def _assets(name: str, manifest: dict[str, Any], partitions: dg.PartitionsDefinition) -> dg.AssetsDefinition:
    @dbt_assets(
        manifest=manifest,
        select=name,
        name=f"dbt_{name}",
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.multi_run(TABLES[name][4]),
        dagster_dbt_translator=DagsterDbtTranslator(),
    )
    def models(context: dg.AssetExecutionContext, dbt: DbtCliResource) -> Iterator[Any]:
        start, end = context.partition_time_window
        variables = json.dumps({"start": f"{start:{TIME}}", "end": f"{end:{TIME}}"})
        yield from dbt.cli(["build", "--vars", variables], context=context).stream()

    return models
