"""Launches that were cut off: the ledger learns all the same what their runs are going to build."""

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent
from runs import partitions

import t2
from t2.definitions.launches import Launches
from t2.ledger.ledger import Ledger
from t2.ledger.storage import locate
from t2.project.model import Project

TABLE = "main/orders_daily"
KEYS = ["2024-01-03", "2024-01-04", "2024-01-05"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("reported", [0, 1, 3])
def test_a_run_whose_launch_was_cut_off_is_known_to_build_its_partitions(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, reported: int
) -> None:
    run = cut_off_launch(project, instance, monkeypatch, reported)
    ledger = Ledger(locate(Path(instance.root_directory)))
    ledger.follow()
    launches = Launches(project, ledger)
    assert launches.complete(instance) is (reported < len(KEYS))
    ledger.follow()
    assert ledger.planned({run.run_id}) == {(run.run_id, TABLE, key) for key in KEYS}
    assert not launches.complete(instance)
    assert not Launches(project, ledger).complete(instance)


def cut_off_launch(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, reported: int
) -> dg.DagsterRun:
    """Add a run whose launch dies after so many events, and start it as the next tick of a sensor does."""
    key = dg.AssetKey(TABLE.split("/"))
    job = t2.build_defs(project.root).resolve_implicit_global_asset_job_def()
    job = job.get_subset(asset_selection={key})
    report, told = instance.report_dagster_event, []

    def die(event: DagsterEvent, *arguments: object, **options: object) -> None:
        if len(told) == reported:
            raise Killed
        told.append(event)
        options.pop("batch_metadata", None)
        report(event, *arguments, **options)

    monkeypatch.setattr(instance, "report_dagster_event", die)
    with pytest.raises(Killed):
        instance.create_run_for_job(job, asset_selection=frozenset({key}), tags=partitions(KEYS[0], KEYS[-1]))
    monkeypatch.undo()
    [run] = instance.get_runs()
    starting = DagsterEvent(dg.DagsterEventType.PIPELINE_STARTING.value, run.job_name)
    instance.report_dagster_event(starting, run.run_id)
    return run
