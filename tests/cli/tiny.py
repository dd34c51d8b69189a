"""A project on real data: DuckDB, dbt, and the planner's sensor, without the processes around them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
import duckdb
import pytest

import t2
from t2.cli import main
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
            main(list(arguments))
        return Printed(int(end.value.code or 0), out.getvalue(), err.getvalue())

    def json(self, *arguments: str) -> Any:
        return json.loads(self.cli(*arguments, "--format", "json").stdout)


W = TypeVar("W", bound=World)


@contextmanager
def tiny_world(root: Path, kind: type[W]) -> Iterator[W]:
    """Make the project in a directory, and land its raw data."""
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
            made = kind(root, project, runs)
            made.land()
            made.settle()
            yield made
