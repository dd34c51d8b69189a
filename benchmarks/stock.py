"""The other side: the same project on plain dagster-dbt, set up as its documentation says.

Where stock Dagster leaves a choice, this is the faster one: views are virtual assets, runs execute in
process, sensors tick as often as Dagster lets them.
"""

import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtCliResource, dbt_assets

from benchmarks.measure import environment, process

Props = Mapping[str, Any]
SENSOR = "automation"
TIME = "%Y-%m-%d %H:%M:%S"
DBT = [sys.executable, "-m", "dbt.cli.main"]


class Translator(DagsterDbtTranslator):
    """Hourly and daily models in one code location, each as soon as its inputs are updated."""

    def __init__(self, begin: date) -> None:
        super().__init__(DagsterDbtTranslatorSettings(enable_dbt_views_as_virtual_assets=True))
        start = datetime(begin.year, begin.month, begin.day)
        self.partitions = {
            "hour": dg.HourlyPartitionsDefinition(start_date=start),
            "day": dg.DailyPartitionsDefinition(start_date=start),
        }
        # Without this a landing is not seen through the staging views.
        self.condition = dg.AutomationCondition.eager().resolve_through_virtual()

    def get_partitions_def(self, dbt_resource_props: Props) -> dg.PartitionsDefinition | None:
        return self.partitions.get(dbt_resource_props["config"].get("meta", {}).get("grain"))

    def get_automation_condition(
        self, dbt_resource_props: Mapping[str, Any]
    ) -> dg.AutomationCondition | None:
        is_view = dbt_resource_props["config"].get("materialized") == "view"
        return None if is_view else self.condition


def definitions(project: Path) -> dg.Definitions:
    """Return the code location of a prepared stock project (`prepare`)."""
    warnings.simplefilter("ignore")
    manifest = json.loads((project / "target" / "manifest.json").read_text())
    begin = next(iter(manifest["sources"].values()))["config"]["meta"]["begin"]
    translator = Translator(date.fromisoformat(begin))

    @dbt_assets(manifest=manifest, dagster_dbt_translator=translator)
    def models(context: dg.AssetExecutionContext, dbt: DbtCliResource) -> Iterator[Any]:
        yield from dbt.cli(["build", *_window(context)], context=context).stream()

    sources = [
        dg.AssetSpec(translator.get_asset_key(source), partitions_def=translator.partitions["hour"])
        for source in manifest["sources"].values()
    ]
    sensor = dg.AutomationConditionSensorDefinition(
        SENSOR,
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=1,
    )
    return dg.Definitions(
        assets=[models, *sources],
        sensors=[sensor],
        resources={"dbt": _dbt(project)},
        executor=dg.in_process_executor,
    )


def _dbt(project: Path) -> DbtCliResource:
    executable = str(Path(sys.executable).parent / "dbt")
    return DbtCliResource(project_dir=str(project), profiles_dir=str(project), dbt_executable=executable)


def _window(context: dg.AssetExecutionContext) -> list[str]:
    if not context.has_partition_key:
        return []
    start, end = context.partition_time_window
    return ["--vars", json.dumps({"start": f"{start:{TIME}}", "end": f"{end:{TIME}}"})]


def prepare(project: Path) -> None:
    """Parse a project, as a deployment does, so that `target/manifest.json` is there."""
    process([*DBT, "parse", *flags(project)], env=environment())


def flags(project: Path) -> list[str]:
    """Return the options that make dbt use a project from any directory."""
    return ["--project-dir", str(project), "--profiles-dir", str(project)]
