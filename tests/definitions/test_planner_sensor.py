"""When the planner's sensor asks again."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import dagster as dg
import pytest

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
