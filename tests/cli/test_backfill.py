"""`t2 backfill` on real data: DuckDB, dbt, and the planner's sensor, without the processes around them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from io import StringIO
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

import t2
from t2.cli import main
from t2.definitions import cancel
from t2.definitions.planner_sensor import Planner
from t2.definitions.runs import QUIET, LocalRuns
from t2.ledger.ledger import Ledger
from t2.ledger.storage import locate
from t2.project.model import Project
from t2.runtime.parsing import install_package

# February 2021 is four whole weeks.
BEGIN, DAYS = date(2021, 2, 1), 28
FILES = {
    "dbt_project.yml": "name: tiny\nprofile: tiny\nflags: {send_anonymous_usage_stats: false}\n",
    "profiles.yml": """
tiny:
  target: dev
  outputs: {dev: {type: duckdb, path: tiny.duckdb, schema: main, threads: 2}}
""",
    "models/models.yml": """
sources:
  - name: raw
    schema: raw
    tables:
      - name: events
        config: {event_time: day, meta: {t2: {batch_size: day, begin: "2021-02-01", end: "2021-03-01"}}}
models:
  - name: daily
    config:
      materialized: partitioned
      event_time: day
      batch_size: day
      begin: "2021-02-01"
      meta: {t2: {end: "2021-03-01", backfill: {partitions_per_run: 14, concurrency: 2}}}
    columns: [{name: amount, data_tests: [not_null]}]
  - name: weekly
    config:
      materialized: partitioned
      event_time: week
      batch_size: week
      begin: "2021-02-01"
      meta: {t2: {end: "2021-03-01", retries: {attempts: 0}, backfill: {partitions_per_run: 2}}}
  - name: monthly
    config:
      materialized: partitioned
      event_time: month
      batch_size: month
      begin: "2021-02-01"
      meta: {t2: {end: "2021-03-01"}}
  - name: report
    config: {materialized: table}
""",
    "models/daily.sql": "select day, amount from {{ t2.window('raw', 'events') }}",
    # An amount of 666 cannot be cast: how a test makes a week fail.
    "models/weekly.sql": """
select date_trunc('week', day)::date as week, sum(amount) as amount,
    max(cast(case when amount = 666 then 'bad' else '0' end as integer)) as fine
from {{ t2.window('daily') }} group by 1
""",
    "models/monthly.sql": """
select date_trunc('month', week)::date as month, sum(amount) as amount
from {{ t2.window('weekly') }} group by 1
""",
    "models/report.sql": "select sum(amount) as amount from {{ ref('weekly') }}",
}


@dataclass(frozen=True)
class Printed:
    """What a command did."""

    returncode: int
    stdout: str
    stderr: str


class World:
    """A project, its warehouse, and a planner whose runs are executed one after the other."""

    def __init__(self, root: Path, project: Project, runs: LocalRuns) -> None:
        self.root, self.project, self.runs = root, project, runs
        self.instance: Any = runs._instance
        self.ledger = Ledger(locate(root / ".t2"))
        self.planner = Planner(project, self.ledger)

    def query(self, sql: str) -> Any:
        with duckdb.connect(str(self.root / "tiny.duckdb")) as connection:
            return connection.execute(sql).fetchall()

    def land(self) -> None:
        for number in range(DAYS):
            name = f"{BEGIN + timedelta(days=number)}"
            landed = dg.AssetMaterialization(dg.AssetKey(["raw", "events"]), partition=name)
            self.instance.report_runless_asset_event(landed)

    def ask(self) -> list[dg.RunRequest]:
        decided = self.planner.look(self.instance, datetime.now(timezone.utc))
        return [] if decided is None else list(self.planner.requests())

    def execute(self, request: dg.RunRequest) -> None:
        tags = dict(request.tags)
        if request.partition_key:
            tags["dagster/partition"] = request.partition_key
        assert self.runs._job is not None
        self.runs._job.execute_in_process(
            instance=self.instance,
            asset_selection=request.asset_selection,
            tags=tags,
            run_config=QUIET,
            raise_on_error=False,
        )

    def settle(self, *, at_most: int = 10_000) -> list[dg.RunRequest]:
        """Execute what the planner asks for until it asks for nothing; return all of it."""
        done: list[dg.RunRequest] = []
        while len(done) < at_most and (requests := self.ask()):
            for request in requests[: at_most - len(done)]:
                self.execute(request)
                done.append(request)
        return done

    def cli(self, *arguments: str) -> Printed:
        """Run a command as the command line does, but in this process."""
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
            main(["backfill", *arguments])
        return Printed(int(end.value.code or 0), out.getvalue(), err.getvalue())

    def json(self, *arguments: str) -> Any:
        return json.loads(self.cli(*arguments, "--format", "json").stdout)


def tables(requests: list[dg.RunRequest]) -> dict[str, int]:
    found = Counter(",".join(key.path[-1] for key in request.asset_selection or ()) for request in requests)
    return dict(found)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("backfill")
    for name, text in FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text.lstrip())
    with duckdb.connect(str(root / "tiny.duckdb")) as connection:
        connection.execute("create schema raw")
        connection.execute(
            "create table raw.events as select 1 as amount, $1::date + i::int as day from range($2) t(i)",
            [BEGIN, DAYS],
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DAGSTER_HOME", raising=False)
        patch.chdir(root)
        install_package(root)
        project = t2.load_project(root)
        with LocalRuns(project) as runs:
            made = World(root, project, runs)
            made.land()
            made.settle()
            yield made


def test_the_preview_says_what_would_be_done_and_does_nothing(world: World) -> None:
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


def test_a_backfill_builds_all_of_it_once_in_the_runs_of_the_preview(world: World) -> None:
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


def test_a_failed_part_ends_a_backfill_and_is_retried_alone(world: World) -> None:
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
    world: World, monkeypatch: pytest.MonkeyPatch
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


def test_a_request_stays_when_the_ledger_is_rebuilt_and_its_runs_are_asked_for_once(world: World) -> None:
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
def test_contradictions_are_refused(world: World, arguments: list[str], message: str) -> None:
    result = world.cli(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
