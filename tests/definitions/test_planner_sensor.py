"""When the planner's sensor asks again."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import dagster as dg
import pytest

import t2
from t2.definitions._dagster.tags import BACKFILL_TAG, PARTITION_TAG
from t2.definitions.limits import AT_MOST
from t2.definitions.planner_sensor import Planner
from t2.definitions.queue_room import QueueRoom
from t2.ledger.ledger import Ledger
from t2.ledger.storage import locate
from t2.project.model import Project

NOW = datetime(2024, 1, 10, tzinfo=timezone.utc)


def planner_of(project: Project, instance: dg.DagsterInstance) -> Planner:
    return Planner(project, Ledger(locate(Path(instance.root_directory))))


def keys(planner: Planner) -> list[str | None]:
    return [request.run_key for request in planner.requests()]


def test_what_was_asked_for_and_lost_is_asked_for_again(
    project: Project, instance: dg.DagsterInstance
) -> None:
    planner = planner_of(project, instance)
    assert planner.look(instance, NOW) is not None
    lost = keys(planner)
    assert lost
    assert planner.look(instance, NOW) is not None
    assert keys(planner) == lost


def test_what_the_queue_has_no_room_for_waits_for_news(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = planner_of(project, instance)
    monkeypatch.setattr(QueueRoom, "take", lambda self, priority: False)
    made = planner.look(instance, NOW)
    assert made is not None
    assert made.requests
    assert keys(planner) == []
    assert planner.look(instance, NOW) is None
    instance.report_runless_asset_event(dg.AssetMaterialization("somebody_elses"))
    monkeypatch.undo()
    assert planner.look(instance, NOW) is not None
    assert keys(planner)


def test_runs_of_a_table_count_for_dagsters_backfill_of_it_and_others_do_not(
    project: Project, instance: dg.DagsterInstance
) -> None:
    planner = planner_of(project, instance)
    daily = dg.AssetKey(["main", "orders_daily"])

    def limited() -> set[tuple[str, str]]:
        for day in ("2024-01-03", "2024-01-05"):
            landed = dg.AssetMaterialization(dg.AssetKey(["raw", "orders"]), partition=day)
            instance.report_runless_asset_event(landed)
        assert planner.look(instance, NOW) is not None
        requests = list(planner.requests())
        assert {key for request in requests for key in request.asset_selection or ()} > {daily}
        return {tag for request in requests for tag in request.tags.items() if tag[0].startswith(AT_MOST)}

    assert limited() == set()
    job = t2.build_defs(project.root).resolve_implicit_global_asset_job_def()
    instance.create_run_for_job(
        job.get_subset(asset_selection={daily}),
        asset_selection=frozenset({daily}),
        tags={BACKFILL_TAG: "b", PARTITION_TAG: "2024-01-03"},
        status=dg.DagsterRunStatus.STARTING,
    )
    assert limited() == {(f"{AT_MOST}4", "main/orders_daily")}
