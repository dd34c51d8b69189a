"""`t2 backfill` on real data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timezone

import dagster as dg
import pytest
from tests.cli.tiny import Printed, World, tiny_world

from t2.definitions import cancel
from t2.definitions.planner_sensor import Planner
from t2.ledger.ledger import Ledger
from t2.ledger.storage import locate


class Backfills(World):
    """A world in which every command is one of `t2 backfill`."""

    def cli(self, *arguments: str) -> Printed:
        return super().cli("backfill", *arguments)


def tables(requests: list[dg.RunRequest]) -> dict[str, int]:
    found = Counter(",".join(key.path[-1] for key in request.asset_selection or ()) for request in requests)
    return dict(found)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backfills]:
    with tiny_world(tmp_path_factory.mktemp("backfill"), Backfills) as made:
        yield made


def test_the_preview_says_what_would_be_done_and_does_nothing(world: Backfills) -> None:
    found = world.json("daily+", "--all", "--dry-run")["preview"]
    assert [(t["table"], t["partitions"], t["runs"]) for t in found["tables"]] == [
        ("main/daily", 28, 2),
        ("main/weekly", 4, 2),
        ("main/monthly", 1, 1),
    ]
    assert (found["partitions"], found["runs"], found["followers"]) == (33, 5, ["main/report"])
    assert found["seconds"] > 0
    text = world.cli("daily+", "--all", "--dry-run").stdout
    assert "33 partitions in 5 runs, about " in text
    assert "built again by themselves when it is over: main/report" in text
    assert world.cli("list").stdout == "there are no backfills\n"


def test_a_backfill_builds_all_of_it_once_in_the_runs_of_the_preview(world: Backfills) -> None:
    before = world.query("select sum(amount) from weekly")
    world.query("update raw.events set amount = 2")
    started = world.cli("daily+", "--all", "--yes", "--reason", "amounts were wrong")
    assert started.stdout.endswith("backfill 1 started; `t2 backfill show 1 --watch` follows it\n")
    again = world.cli("daily", "--from", "2021-02-02", "--to", "2021-02-03", "--yes")
    assert again.returncode == 1
    assert again.stdout.startswith("backfill 1 does that already (0 of 33 partitions done): daily+ --all\n")
    requests = world.settle()
    assert tables(requests) == {"daily": 2, "weekly": 2, "monthly": 1, "report": 1}
    assert {request.tags["dagster/priority"] for request in requests[:5]} == {"-2"}
    assert {request.tags.get("t2/backfill") for request in requests} == {"1", None}
    assert before == [(28,)]
    for table in ("daily", "weekly", "monthly", "report"):
        assert world.query(f"select sum(amount) from {table}") == [(56,)]
    shown = world.json("show", "1")
    assert (shown["state"], shown["counts"]) == ("done", {"done": 33, "running": 0, "failed": 0, "left": 0})
    assert world.settle() == []


def test_a_failed_part_ends_a_backfill_and_is_retried_alone(world: Backfills) -> None:
    world.query("update daily set amount = 666 where day = date '2021-02-17'")
    assert world.cli("weekly+", "--all", "--yes").returncode == 0
    # When it is over, the month goes on with the old data of the weeks that failed.
    assert tables(world.settle()) == {"weekly": 2, "monthly": 1, "report": 1}
    shown = world.json("show", "2")
    assert (shown["state"], shown["counts"]["failed"], shown["counts"]["left"]) == ("failed", 2, 1)
    assert shown["tables"][0]["failed_partitions"] == [["2021-02-15", "2021-02-22"]]
    assert "`t2 backfill retry 2`" in world.cli("show", "2").stdout
    world.query("update daily set amount = 2")
    assert world.cli("retry", "2").returncode == 0
    assert tables(world.settle()) == {"weekly": 1, "monthly": 1, "report": 1}
    assert world.json("show", "2")["counts"] == {"done": 5, "running": 0, "failed": 0, "left": 0}
    assert world.query("select sum(amount) from monthly") == [(56,)]


def test_a_canceled_backfill_stops_and_goes_on_where_it_was(
    world: Backfills, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancel, "QUIET_SECONDS", 0.1)
    number = world.json("weekly", "--all", "--yes")["backfill"]
    assert tables(world.settle(at_most=1)) == {"weekly": 1}
    assert world.cli("cancel", str(number), "--now").returncode == 0
    assert tables(world.settle()) == {"monthly": 1, "report": 1}
    assert world.json("show", str(number))["counts"] == {"done": 2, "running": 0, "failed": 0, "left": 2}
    assert world.cli("cancel", str(number)).returncode == 2
    assert world.cli("resume", str(number)).returncode == 0
    assert tables(world.settle())["weekly"] == 1
    assert world.json("show", str(number))["state"] == "done"


def test_a_request_stays_when_the_ledger_is_rebuilt_and_its_runs_are_asked_for_once(world: Backfills) -> None:
    assert world.cli("weekly", "--all", "--yes").returncode == 0
    asked = world.ask()
    world.ledger.rebuild()
    other = Planner(world.project, Ledger(locate(world.root / ".t2")))  # another daemon, or the next one
    other.look(world.instance, datetime.now(timezone.utc))
    assert [request.run_key for request in other.requests()] == [request.run_key for request in asked]
    for request in asked:
        world.execute(request)
    assert tables([*asked, *world.settle()])["weekly"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["weekly"], "main/weekly has week partitions, and none was asked for"),
        (["weekly", "--all", "--missing"], "--all and --missing cannot be combined"),
        (["weekly", "--to", "2021-02-03"], "--to without --from cannot be combined"),
        (["weekly", "--from", "2021-02-20", "--to", "2021-02-03"], "holds no partition of main/weekly"),
        (["report", "--partition", "2021-02-03"], "main/report is not partitioned"),
        (["show", "99"], "there is no backfill 99"),
        (["daly", "--all"], "did you mean 'daily'?"),
    ],
)
def test_contradictions_are_refused(world: Backfills, arguments: list[str], message: str) -> None:
    result = world.cli(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
