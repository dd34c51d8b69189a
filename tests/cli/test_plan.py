"""`t2 plan` on real data."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.cli.tiny import World, tiny_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with tiny_world(tmp_path_factory.mktemp("plan"), World) as made:
        yield made


def test_where_all_is_up_to_date_nothing_would_be_requested(world: World) -> None:
    assert world.cli("plan").stdout == "nothing would be requested\n"
    assert world.json("plan")["requests"] == []
    assert world.ask() == []


def test_from_nothing_it_is_what_a_new_project_begins_with(world: World) -> None:
    assert world.cli("plan", "--empty").stdout == "nothing would be requested\n"
    found = world.json("plan", "--empty", "--assume", "raw.events=landed")
    assert [(one["tables"], one["first"], one["last"], one["why"]) for one in found["requests"]] == [
        (["main/daily"], "2021-02-01", "2021-02-14", "missing"),
        (["main/daily"], "2021-02-15", "2021-02-28", "missing"),
    ]
    text = world.cli("plan", "--empty", "--assume", "raw.events=landed").stdout
    assert "main/daily 2021-02-01 to 2021-02-14, 14 partitions (missing)" in text


def test_what_failed_for_good_is_not_requested(world: World) -> None:
    assumed = ["--assume", "raw.events=landed", "--assume", "daily=failed"]
    assert world.json("plan", "--empty", *assumed)["requests"] == []


def test_an_earlier_time_has_fewer_partitions(world: World) -> None:
    found = world.json("plan", "--empty", "--assume", "events=landed", "--at", "2021-02-03T12:00")
    assert [(one["first"], one["last"]) for one in found["requests"]] == [("2021-02-01", "2021-02-02")]


def test_the_coming_hours_are_simulated(world: World) -> None:
    found = world.json("plan", "--empty", "--assume", "events=landed", "--for", "1h")
    landed = [one["table"] for one in found["landings"]]
    assert [landed.count(key) for key in ("main/daily", "main/weekly", "main/monthly")] == [28, 4, 1]
    assert set(landed[-2:]) == {"main/monthly", "main/report"}
    assert all(one["at"] <= one["starts"] <= one["ends"] for one in found["requests"])
    text = world.cli("plan", "--empty", "--assume", "events=landed", "--for", "1h").stdout
    assert "LANDS NEXT" in text
    assert "main/monthly  2021-02-01" in text
    assert world.cli("plan", "--for", "1h").stdout.startswith("nothing will be requested\n")
    assert world.ask() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--at", "soon"], "--at is 'soon'; expected a time"),
        (["--for", "long"], "--for is 'long'; expected a duration"),
        (["--assume", "daily"], "--assume is 'daily'; expected TABLE=landed or TABLE=failed"),
        (["--assume", "events=failed"], "a source can only be landed"),
        (["--assume", "daly=failed"], "did you mean 'daily'?"),
    ],
)
def test_what_cannot_be_planned_is_said(world: World, arguments: list[str], message: str) -> None:
    said = world.cli("plan", *arguments)
    assert said.returncode == 2
    assert message in said.stderr
