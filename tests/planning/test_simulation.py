"""Weeks in the life of a project: nothing early, nothing twice, nothing lost."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.planning.projects import by, count, project, source, table, utc
from tests.planning.simulation import Luck, World

from t2.planning.verdict import Outcome
from t2.project.model import Grain, Project, Retries, Table, Upstream

HOURS, DAYS = by(Grain.HOUR), by(Grain.DAY)
NEW_YORK = by(Grain.DAY, zone="America/New_York")
START = utc(2024, 3, 4)


def airline() -> Project:
    nodes = (
        source("events", HOURS),
        source("fares", DAYS),
        source("codes"),
        table("carriers", kind="seed", materialized="seed"),
        table("events_view", None, "raw/events", materialized="view"),
        table("stg", HOURS, "m/events_view", Upstream("raw/events", 0, ("events_view",)), concurrency=5),
        table("clean", HOURS, "m/stg", size=6, concurrency=5),
        table("enriched", HOURS, "m/clean", "m/stg", "raw/codes", size=6, concurrency=3),
        table("daily", DAYS, "m/clean", concurrency=4),
        table("new_york", NEW_YORK, "m/clean", materialized="incremental"),
        table("priced", DAYS, "m/daily", "raw/fares", "m/carriers", size=3, concurrency=3),
        table("rolling", DAYS, Upstream("m/daily", 6), "m/priced", concurrency=4),
        table("balance", DAYS, "m/daily", Upstream("m/balance", 1), size=4),
        table("weekly", by(Grain.WEEK), "m/daily"),
        table("by_hand", DAYS, "m/daily", automation="manual"),
        table("after_hand", DAYS, "m/by_hand", "m/daily"),
        table("report", None, "m/rolling", "m/carriers"),
        table("summary", None, "m/report", "m/balance"),
    )
    patient = Retries(3, 60)
    return project(*(replace(n, retries=patient) if isinstance(n, Table) else n for n in nodes))


def world(days: int, seed: int = 0, luck: Luck | None = None) -> World:
    made = World(airline(), START, START + timedelta(days=days), seed, luck or Luck())
    made.land("raw/codes", 0)
    return made


def land_on_time(made: World, until_day: int, *, chance: bool = False) -> None:
    """Schedule what the sources do: hours land after minutes, by chance late, dirty, or again."""
    for key, hours in (("raw/events", 1), ("raw/fares", 24)):
        for index in range(until_day * 24 // hours):
            end = START + timedelta(hours=hours * (index + 1))
            late = made.dice.expovariate(1 / 30) if not chance or made.dice.random() > 0.05 else 60 * 30
            dirty = chance and made.dice.random() < 0.03
            made.at(end + timedelta(minutes=late), lambda k=key, i=index, d=dirty: made.land(k, i, dirty=d))
            if dirty or (chance and made.dice.random() < 0.03):
                again = end + timedelta(minutes=late + made.dice.expovariate(1 / 600))
                made.at(again, lambda k=key, i=index: made.land(k, i))


def settle(made: World) -> None:
    """Let everything that runs end, at the same hour."""
    for _ in range(40):
        made.live(made.now + timedelta(minutes=59))
        if not made.running and not made.plan.requests:
            return


def land_all(made: World, key: str) -> None:
    for index in range(count(made.project.node(key), made.now)):
        made.land(key, index)


def build_by_hand(made: World) -> None:
    for index in range(count(made.project.tables["m/by_hand"], made.now)):
        made.person("m/by_hand", index)


@pytest.mark.parametrize("seed", range(2))
def test_ten_bad_days_lose_nothing(seed: int) -> None:
    names = {"m/clean": ("m/daily", "m/new_york"), "m/daily": ("m/rolling", "m/summary")}
    made = world(14, seed, Luck(fails=0.1, dirty=0.02, named=0.02, names=names))
    land_on_time(made, 10, chance=True)
    for day in range(1, 10):
        made.at(START + timedelta(days=day, hours=12), lambda: build_by_hand(made))
        made.at(START + timedelta(days=day, hours=13), lambda: made.land("raw/codes", 0))
    made.live(START + timedelta(days=10))
    made.luck.fails = made.luck.dirty = made.luck.named = 0
    made.live(START + timedelta(days=12, minutes=1))
    build_by_hand(made)
    made.live(START + timedelta(days=12, minutes=50))
    made.check_up_to_date()
    assert not [part for part in made.held_back() if part[1] < 240 and part[0] == "raw/events"]


def test_after_an_outage_of_days_everything_catches_up_alone_and_each_partition_is_built_once() -> None:
    made = world(8)
    made.live(START + timedelta(days=5, minutes=1))
    assert all(part[0] in ("m/carriers",) for part in made.built)
    land_all(made, "raw/fares")
    land_all(made, "raw/events")
    settle(made)
    made.check_up_to_date()
    by_hand = {(key, day) for key in ("m/by_hand", "m/after_hand") for day in range(5)}
    assert {part for part in made.held_back() if part[1] < 5} == by_hand
    assert {part: times for part, times in made.built.items() if times > 1} == {}


def quiet(days: int = 10) -> World:
    """A project whose first days have landed, and in which nothing runs."""
    made = world(days + 2)
    made.now = START + timedelta(days=days, minutes=1)
    for key in (*made.project.sources, *made.project.tables):
        for index in range(count(made.project.node(key), made.now)):
            made.saw[key, index] = made.versions(key, index) if key in made.project.tables else {}
            made.land(key, index)
    settle(made)
    made.check_up_to_date()
    assert not made.built
    return made


def spread(*days: int) -> set[tuple[str, int]]:
    """What reads the days through `daily`, except the hours and New York's days."""
    last, first = 9, min(days)
    return {
        *(("m/daily", day) for day in days),
        *(("m/priced", day) for day in days),
        *(("m/after_hand", day) for day in days),
        *(("m/rolling", day + back) for day in days for back in range(7) if day + back <= last),
        *(("m/balance", day) for day in range(first, last + 1)),
        *(("m/weekly", day // 7) for day in days if day // 7 < 1),
        ("m/report", 0),
        ("m/summary", 0),
    }


def test_late_hours_that_come_together_build_all_that_reads_them_once() -> None:
    made = quiet()
    for hour in (50, 51, 60):  # day 2; New York's day 1 from 05:00, the others day 2
        made.land("raw/events", hour)
    settle(made)
    made.check_up_to_date()
    hourly = {(key, hour) for key in ("m/stg", "m/clean", "m/enriched") for hour in (50, 51, 60)}
    # New York's day 1 is 2024-03-05 05:00 to 2024-03-06 05:00, hours 29 to 52.
    assert dict(made.built) == dict.fromkeys(spread(2) | hourly | {("m/new_york", 1), ("m/new_york", 2)}, 1)


def test_a_dirty_hour_holds_back_just_what_reads_it_until_it_is_repaired() -> None:
    made = quiet()
    made.land("raw/events", 50, dirty=True)
    made.land("raw/events", 130)  # day 5: clean, late
    settle(made)
    made.check_up_to_date()
    hourly = {(key, 130) for key in ("m/stg", "m/clean", "m/enriched")}
    # What reads day 5 and not day 2: of the rolling windows day 9's; not balance, not report.
    free = {("m/daily", 5), ("m/priced", 5), ("m/after_hand", 5), ("m/new_york", 5), ("m/rolling", 9)}
    assert dict(made.built) == dict.fromkeys(hourly | free, 1)
    held = {("m/stg", 50), ("m/daily", 2), ("m/balance", 5), ("m/rolling", 8), ("m/report", 0)}
    assert held <= made.held_back()
    assert Outcome(int(made.plan.outcomes["m/rolling"][8])) is Outcome.WAITING
    made.built.clear()
    made.land("raw/events", 50)
    settle(made)
    made.check_up_to_date()
    repaired = {(key, 50) for key in ("m/stg", "m/clean", "m/enriched")} | {("m/new_york", 1)}
    done = {("m/daily", 5), ("m/priced", 5), ("m/after_hand", 5), ("m/rolling", 9)}
    assert dict(made.built) == dict.fromkeys((spread(2, 5) - done) | repaired, 1)


def test_a_check_that_names_one_table_holds_back_that_table_and_what_reads_it_alone() -> None:
    made = quiet()
    made.land("raw/events", 50, bars=("m/daily",))
    settle(made)
    made.check_up_to_date()
    hourly = {(key, 50) for key in ("m/stg", "m/clean", "m/enriched")}
    assert dict(made.built) == dict.fromkeys(hourly | {("m/new_york", 1)}, 1)
    assert Outcome(int(made.plan.outcomes["m/daily"][2])) is Outcome.WAITING
    assert made.bars("m/daily", 2) == {("raw/events", 50)}  # two tables up, through a view
    made.built.clear()
    made.check_again("raw/events", 50, int(made.whole["raw/events"].landed_id[50]))
    settle(made)
    made.check_up_to_date()
    assert dict(made.built) == dict.fromkeys(spread(2), 1)
