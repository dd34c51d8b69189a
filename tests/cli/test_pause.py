"""`t2 pause` and `t2 resume` on real data."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import dagster as dg
import pytest
from tests.cli.tiny import World, tiny_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with tiny_world(tmp_path_factory.mktemp("pause"), World) as made:
        yield made


def change(world: World, day: date) -> None:
    landed = dg.AssetMaterialization(dg.AssetKey(["raw", "events"]), partition=f"{day}")
    world.instance.report_runless_asset_event(landed)


def built(requests: list[dg.RunRequest]) -> list[str]:
    return sorted(key.path[-1] for request in requests for key in request.asset_selection or ())


def test_nothing_is_paused_at_first(world: World) -> None:
    assert world.cli("pause").stdout == "nothing is paused\n"
    assert world.cli("resume", "daily").returncode == 1
    assert world.cli("resume", "--all").stdout == "none of them was paused\n"


def test_a_paused_table_is_not_built_until_it_is_resumed(world: World) -> None:
    said = world.cli("pause", "weekly+", "--reason", "the feed sends doubles", "--for", "12h")
    assert [line.split(" by ")[0] for line in said.stdout.splitlines()] == [
        "main/weekly",
        "main/monthly",
        "main/report",
    ]
    assert said.stdout.splitlines()[0].endswith(": the feed sends doubles")
    change(world, date(2021, 2, 3))
    assert built(world.settle()) == ["daily"]
    answer: Any = world.json("why", "weekly", "2021-02-01")
    assert answer["outcome"] == "paused"
    assert "the feed sends doubles" in answer["sentence"]
    assert "`t2 resume main/weekly`, or by itself at" in answer["causes"][0]["clears"]
    assert world.json("resume", "weekly+") == {"resumed": ["main/monthly", "main/report", "main/weekly"]}
    assert built(world.settle()) == ["monthly", "report", "weekly"]


def test_a_backfill_rests_while_its_table_is_paused(world: World) -> None:
    world.cli("pause", "weekly", "--reason", "later")
    assert world.cli("backfill", "daily", "weekly", "--all", "--yes").returncode == 0
    assert built(world.settle()) == ["daily", "daily"]
    [listed] = world.json("backfill", "list")
    assert (listed["state"], listed["counts"]["left"]) == ("running", 4)
    assert world.cli("resume", "weekly").returncode == 0
    assert built(world.settle())[-2:] == ["weekly", "weekly"]
    [listed] = world.json("backfill", "list")
    assert (listed["state"], listed["counts"]["left"]) == ("done", 0)


def test_what_was_ordered_is_kept(world: World) -> None:
    world.cli("pause", "daily", "--reason", "one")
    world.cli("pause", "daily", "--reason", "two", "--until", "2100-01-01")
    now = world.json("pause")
    assert [(p["table"], p["reason"], p["until"]) for p in now] == [
        ("main/daily", "two", "2100-01-01T00:00:00+00:00")
    ]
    past = world.json("pause", "--history")
    assert [(p["reason"], p["paused"], p["ended_by"] is None) for p in past[:2]] == [
        ("two", True, True),
        ("one", False, False),
    ]
    assert "ended by" in world.cli("pause", "--history").stdout
    world.cli("resume", "--all")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pause", "daily"], "a pause needs a reason"),
        (["pause", "--reason", "x"], "no table was named"),
        (["pause", "daly", "--reason", "x"], "did you mean 'daily'?"),
        (["pause", "daily", "--reason", "x", "--for", "soon"], "--for is 'soon'; expected a duration"),
        (["pause", "daily", "--reason", "x", "--until", "2001-01-01"], "is over already"),
        (["pause", "daily", "--reason", "x", "--until", "2100-01-01", "--for", "1h"], "were both given"),
        (["resume"], "name tables, or give --all"),
    ],
)
def test_what_cannot_be_done_is_said(world: World, arguments: list[str], message: str) -> None:
    said = world.cli(*arguments)
    assert said.returncode == 2
    assert message in said.stderr
    assert world.json("pause") == []
