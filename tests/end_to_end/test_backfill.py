"""Backfills with all processes: current partitions land meanwhile, and whatever happens it ends."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from itertools import chain

import pytest
from tests.end_to_end.backfilled import (
    CURRENT,
    LAUNCH,
    STATUS,
    Backfilled,
    at_once,
    days,
    hours,
    times_built,
)
from tests.end_to_end.local import until

# What an hour costs: for ever, seconds, a moment.
LONG, MIDDLE, SHORT = 3000, 450, 1
FRESH = iter(hours(-CURRENT, 0))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backfilled]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DAGSTER_HOME", raising=False)
        made = Backfilled(tmp_path_factory.mktemp("backfilled") / "project")
        with made.family, made.instance:
            yield made


def lands(world: Backfilled, hour: str) -> int:
    """Let a current hour of the source land, wait for that of the table, and return the id of its event."""
    world.land(hour)
    return until(lambda: world.ledger.landing("main/hourly", hour), 30).event_id


def test_current_partitions_land_while_a_backfill_with_its_downstream_runs(world: Backfilled) -> None:
    world.sql("update raw.events set amount = 2")
    since, last = world.head(), days(2, 3)[0]
    asked = ["hourly+", "--from", days(0, 1)[0], "--to", last]
    preview = world.json("backfill", *asked, "--dry-run")["preview"]
    # 72 hours, 24 a run; 3 days, 2 a run; balances one by one, to the newest, for each holds all before.
    assert {t["table"]: (t["partitions"], t["runs"]) for t in preview["tables"]} == {
        "main/hourly": (72, 3),
        "main/daily": (3, 2),
        "main/balance": (4, 4),
    }
    number = world.backfill(*asked)
    watch = world.process("backfill", "show", str(number), "--watch")
    landed = [lands(world, next(FRESH)) for _ in range(2)]
    assert world.wait(number) == {"done": 79, "running": 0, "failed": 0, "left": 0}
    text, _ = watch.communicate(timeout=10)
    assert f"backfill {number} running: " in text
    assert f"backfill {number} done: 79 of 79 partitions done" in text

    runs = world.runs(t2__backfill=str(number))
    assert len(runs) == preview["runs"] == 9
    assert {run.dagster_run.tags["dagster/priority"] for run in runs} == {"-2"}
    own = {run.dagster_run.run_id for run in runs}
    built = {table: world.built(table, since) for table in ("main/hourly", "main/daily", "main/balance")}
    ours = {table: [one for one in found if one.run_id in own] for table, found in built.items()}
    assert times_built(ours["main/hourly"]) == dict.fromkeys(hours(0, 72), 1)
    assert times_built(ours["main/daily"]) == dict.fromkeys(days(0, 3), 1)
    assert [one.partition for one in ours["main/balance"]] == days(0, 4)
    assert max(landed) < max(one.event_id for one in chain(*ours.values()))
    assert world.sql("select amount from report") == [{"amount": 144}]
    assert [row["amount"] for row in world.sql("select amount from balance order by day")] == [48, 96, 144]


def test_a_backfill_that_is_canceled_now_ends_what_runs_and_goes_on_later(world: Backfilled) -> None:
    world.pause(LONG)
    since = world.head()
    number = world.backfill("hourly", "--from", days(0, 1)[0], "--to", days(1, 2)[0])
    until(lambda: len(world.executing()) == 2, 30)
    time.sleep(0.7)  # into the statement

    world.cli("backfill", "cancel", str(number), "--now")

    assert world.active() == []
    assert world.counts(number) == ("canceled", {"done": 0, "running": 0, "failed": 0, "left": 48})
    assert {run.dagster_run.status.value for run in world.runs(t2__backfill=str(number))} == {"CANCELED"}
    world.settle()
    assert world.built("main/hourly", since) == []
    assert world.sql(f"select count(*) as n from hourly where moment < '{days(1, 2)[0]}'") == [{"n": 24}]

    world.pause(SHORT)
    world.cli("backfill", "resume", str(number))
    assert world.wait(number)["done"] == 48
    assert times_built(world.built("main/hourly", since)) == dict.fromkeys(hours(0, 48), 1)


def test_only_what_failed_is_retried(world: Backfilled) -> None:
    since, bad = world.head(), days(1, 2)[0]
    world.sql(f"update hourly set amount = 666 where moment = '{bad} 05:00'")
    # With a hole: the second day and the fourth are not asked for together.
    chosen = ["--partition", days(0, 1)[0], "--partition", bad, "--partition", days(3, 4)[0]]
    number = world.backfill("daily", *chosen)
    assert world.wait(number, "failed") == {"done": 1, "running": 0, "failed": 2, "left": 0}
    world.sql(f"update hourly set amount = 2 where moment = '{bad} 05:00'")
    world.cli("backfill", "retry", str(number))
    assert world.wait(number)["done"] == 3
    own = {run.dagster_run.run_id for run in world.runs(t2__backfill=str(number))}
    found = times_built(one for one in world.built("main/daily", since) if one.run_id in own)
    assert found == dict.fromkeys([*days(0, 2), *days(3, 4)], 1)


def test_a_backfill_from_the_page_keeps_the_limits_and_lets_current_partitions_through(
    world: Backfilled,
) -> None:
    world.pause(MIDDLE)
    since = world.head()
    names = hours(0, 36) + hours(40, 76)  # four runs: a third may begin before the planner looks again
    params = {"assetSelection": [{"path": ["main", "hourly"]}], "partitionNames": names}
    launched = world.web.ask(LAUNCH, params=params)["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    backfill_id = launched["backfillId"]
    until(lambda: len(world.runs(dagster__backfill=backfill_id)) == 4, 20)
    fresh = lands(world, next(FRESH))

    def over() -> bool:
        found = world.web.ask(STATUS, id=backfill_id)["partitionBackfillOrError"]["status"]
        return found == "COMPLETED_SUCCESS"

    until(over, 60)
    runs = world.runs(dagster__backfill=backfill_id)
    assert [run.dagster_run.tags["dagster/priority"] for run in runs] == ["-2"] * 4
    assert at_once(runs) == 2
    # The planner's run of the current hour is one of the two.
    assert at_once(world.runs(t2__at_most_2="main/hourly")) == 2
    own = {run.dagster_run.run_id for run in runs}
    ours = [one for one in world.built("main/hourly", since) if one.run_id in own]
    assert times_built(ours) == dict.fromkeys(names, 1)
    assert fresh < max(one.event_id for one in ours)
    world.pause(SHORT)
    world.settle()


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(8))
def test_whoever_is_killed_a_backfill_ends_and_builds_nothing_in_vain(world: Backfilled, seed: int) -> None:
    """Commands that start a backfill are killed, then processes while it is worked off."""
    chance = random.Random(seed)
    roles = ["worker", "daemon", "code location", "warehouse", "run", "run", "run"]
    world.pause(MIDDLE)
    since, before = world.head(), {row["id"] for row in world.json("backfill", "list")}
    asked = ["backfill", "hourly", "balance", "--from", days(0, 1)[0], "--to", days(2, 3)[0], "--yes"]
    for _ in range(2):
        with world.process(*asked) as command:
            time.sleep(chance.uniform(0.2, 1.5))
            command.kill()
    with world.process(*asked) as command:
        command.communicate()
    rows = [row for row in world.json("backfill", "list") if row["id"] not in before]
    # Whether a killed command had asked for it or not, it is asked for once, and for all of it.
    assert [sum(row["counts"].values()) for row in rows] == [75]
    [number] = [row["id"] for row in rows]
    for role in chance.sample(roles, 4):
        time.sleep(chance.uniform(0.3, 2.0))
        until(lambda role=role: world.is_over(number) or killed(world, role), 90)

    assert world.wait(number, seconds=120)["done"] == 75
    for table, names in (("main/hourly", hours(0, 72)), ("main/balance", days(0, 3))):
        built = times_built(one for one in world.built(table, since) if one.partition in names)
        assert built == dict.fromkeys(names, 1)
    three_days = f"moment < timestamp '{days(3, 4)[0]}'"
    assert world.sql(f"select count(*) as n, count(distinct moment) as m from hourly where {three_days}") == [
        {"n": 72, "m": 72}
    ]
    world.pause(SHORT)
    world.settle()


def killed(world: Backfilled, role: str) -> bool:
    """Kill a process of the family, or one that executes a run; tell whether there was one."""
    pids = world.executing() if role == "run" else [world.family.processes.get(role, 0)]
    if not any(pids):
        return False
    os.kill(pids[0], signal.SIGKILL)
    return True
