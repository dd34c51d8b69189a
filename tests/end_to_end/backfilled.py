"""A project whose history has landed, kept up by a family of processes, to be built again in part."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from io import StringIO
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from tests.end_to_end.local import Web, free_port, until

from t2.cli import main
from t2.ledger.ledger import Ledger
from t2.ledger.storage import locate
from t2.runtime import handover
from t2.runtime.family import Family
from t2.runtime.home import prepare_home
from t2.runtime.parsing import load_project

CLI = "import sys; from t2.cli import main; main(sys.argv[1:])"
NOW = datetime.now(timezone.utc).replace(tzinfo=None)
DAYS = 4
# Of the hours that are over, so many have not landed yet: what is current. They come after the days.
CURRENT = 4
BEGIN = datetime.combine(NOW - timedelta(hours=CURRENT), datetime.min.time()) - timedelta(days=DAYS)
QUIET_SECONDS = 0.7
MODEL = (
    "config: {{materialized: partitioned, event_time: {event}, batch_size: {grain}, begin: '{begin:%Y-%m-%d}'"
)
HOURLY = MODEL.format(event="moment", grain="hour", begin=BEGIN)
DAILY = MODEL.format(event="day", grain="day", begin=BEGIN)
FILES = {
    "dbt_project.yml": "name: mine\nprofile: mine\nflags: {send_anonymous_usage_stats: false}\n",
    "profiles.yml": """
mine: {target: dev, outputs: {dev: {type: duckdb, path: mine.duckdb, schema: main, threads: 2}}}
""",
    "models/models.yml": f"""
sources:
  - name: raw
    schema: raw
    tables:
      - name: events
        config:
          event_time: moment
          meta: {{t2: {{batch_size: hour, begin: '{BEGIN:%Y-%m-%d}', monitor: {{enabled: false}}}}}}
models:
  - name: hourly
    {HOURLY}, meta: {{t2: {{retries: {{attempts: 8, wait: 1s}},
      backfill: {{partitions_per_run: 24, concurrency: 2}}}}}}}}
  - name: daily
    {DAILY}, meta: {{t2: {{automation: manual, retries: {{attempts: 0}},
      backfill: {{partitions_per_run: 2}}}}}}}}
  - name: balance
    {DAILY}, meta: {{t2: {{automation: manual, retries: {{attempts: 8, wait: 1s}},
      upstream: {{balance: {{lookback: 1}}}}}}}}}}
    columns: [{{name: day, data_type: date}}, {{name: amount, data_type: bigint}}]
  - name: report
    config: {{materialized: table}}
""",
    # As long as raw.pause has many rows, an hour takes long.
    "models/hourly.sql": """
select moment, amount from {{ t2.window('raw', 'events') }}
where (select sum(hash(a.i + b.i + c.i) % 2) from raw.pause a, raw.pause b, raw.pause c) >= 0
""",
    # An amount of 666 cannot be cast: how a test makes a day fail.
    "models/daily.sql": """
select moment::date as day, sum(amount) as amount,
    max(cast(case when amount = 666 then 'bad' else '0' end as integer)) as fine
from {{ t2.window('hourly') }} group by 1
""",
    "models/balance.sql": """
select d.day, any_value(d.amount) + coalesce(max(b.amount), 0) as amount
from (select moment::date as day, sum(amount) as amount from {{ t2.window('hourly') }} group by 1) d
left join {{ t2.window('balance') }} b on true
group by 1
""",
    "models/report.sql": "select sum(amount) as amount from {{ ref('daily') }}",
}
LAUNCH = """
mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) { __typename
  ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }
"""
STATUS = """
query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }
"""


@dataclass(frozen=True)
class Built:
    """One materialization: its event id, when and by which run."""

    partition: str
    event_id: int
    at: float
    run_id: str


class Backfilled:
    """The project in `root`; its history is there when `family` starts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name, text in FILES.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text.lstrip())
        self._load()
        load_project(root)
        os.environ.pop("DAGSTER_HOME", None)
        with dg.DagsterInstance.from_config(str(prepare_home(root))) as instance:
            for name in ("raw/events", "main/hourly"):
                _land(instance, name, hours(0, -CURRENT))
            for name in ("main/daily", "main/balance"):
                _land(instance, name, [f"{BEGIN + timedelta(days=day):%Y-%m-%d}" for day in range(DAYS)])
            _land(instance, "main/report", [None])
        self.family = Family(root, port=free_port(), environ=dict(os.environ))
        self.instance = dg.DagsterInstance.from_config(str(root / ".t2"))
        self.ledger = Ledger(locate(root / ".t2"))  # the planner keeps it

    def _load(self) -> None:
        with duckdb.connect(str(self.root / "mine.duckdb")) as connection:
            connection.execute("create schema raw; create table raw.pause as select 1 as i")
            connection.execute(
                "create table raw.events as select 1 as amount, $1::timestamp + to_hours(i::int) as moment "
                "from range($2) t(i)",
                [BEGIN, (DAYS + 2) * 24],
            )

    @property
    def web(self) -> Web:
        assert self.family.url
        return Web(self.family.url)

    def cli(self, *arguments: str, code: int = 0) -> str:
        """Run a command in this process and return what it printed."""
        out, err = StringIO(), StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["t2"])  # dbt warns about a -m in it, which may be pytest's
            with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
                main([*arguments, "--project-dir", str(self.root)])
        assert (end.value.code or 0) == code, out.getvalue() + err.getvalue()
        return out.getvalue()

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.cli(*arguments, "--format", "json", code=code))

    def process(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command as a process of its own."""
        command = [sys.executable, "-c", CLI, *arguments, "--project-dir", str(self.root)]
        return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def backfill(self, *arguments: str) -> int:
        """Start a backfill and return its id."""
        return int(self.json("backfill", *arguments, "--yes")["backfill"])

    def is_over(self, number: int) -> bool:
        return self.ledger.backfills.get(number).state != "running"

    def counts(self, number: int) -> tuple[str, dict[str, int]]:
        [row] = [row for row in self.json("backfill", "list") if row["id"] == number]
        return row["state"], row["counts"]

    def wait(self, number: int, state: str = "done", seconds: float = 60) -> dict[str, int]:
        """Wait until a backfill is over and nothing runs any more."""
        until(lambda: self.is_over(number), seconds)
        found, counts = self.counts(number)
        assert found == state, self.cli("backfill", "show", str(number), code=1)
        self.settle()
        return counts

    def settle(self, seconds: float = 30) -> None:
        """Wait until nothing has run for a while."""
        quiet = time.monotonic()
        deadline = quiet + seconds
        while time.monotonic() - quiet < QUIET_SECONDS:
            if self.active():
                quiet = time.monotonic()
            assert time.monotonic() < deadline, self.active()
            time.sleep(0.05)

    def land(self, *names: str) -> None:
        """Let hours of the source land."""
        _land(self.instance, "raw/events", names)

    def sql(self, statement: str) -> Any:
        write = [] if statement.startswith("select") else ["--write"]
        return self.json("sql", statement, *write)

    def pause(self, rows: int) -> None:
        """Let each build of `hourly` take so much: the cube of `rows`."""
        self.sql(f"create or replace table raw.pause as select i from range({rows}) t(i)")

    def built(self, table: str, since: int = 0) -> list[Built]:
        """Return the materializations after an event, oldest first."""
        key = dg.AssetKey(table.split("/"))
        records = self.instance.fetch_materializations(key, limit=5000, ascending=True).records
        return [
            Built(record.partition_key or "", record.storage_id, record.timestamp, record.run_id)
            for record in records
            if record.storage_id > since
        ]

    def head(self) -> int:
        return int(self.instance.event_log_storage.get_maximum_record_id() or 0)

    def runs(self, **tags: str) -> Sequence[dg.RunRecord]:
        named = {name.replace("__", "/"): value for name, value in tags.items()}
        return self.instance.get_run_records(dg.RunsFilter(tags=named), ascending=True)

    def active(self) -> list[str]:
        """Return the runs that have not ended."""
        return [run.run_id for run in self.instance.get_runs() if not run.is_finished]

    def executing(self) -> list[int]:
        """Return the processes that execute runs."""
        home = self.root / ".t2"
        pids = [handover.run_pid(home, path.name) for path in (home / "live_runs").glob("*")]
        return [pid for pid in pids if pid]


def _land(instance: dg.DagsterInstance, table: str, partitions: Iterable[str | None]) -> None:
    key = dg.AssetKey(table.split("/"))
    for partition in partitions:
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition))


def hours(first: int, last: int) -> list[str]:
    """Return the keys [first:last] of the hours that were over at the start; a `last` of 0 is their end."""
    over = int((NOW - BEGIN) / timedelta(hours=1))
    return [f"{BEGIN + timedelta(hours=n):%Y-%m-%d-%H:00}" for n in range(over)][first : last or None]


def days(first: int, last: int) -> list[str]:
    return [f"{BEGIN + timedelta(days=n):%Y-%m-%d}" for n in range(first, last)]


def at_once(records: Iterable[dg.RunRecord]) -> int:
    """Return how many of some runs were in progress at the same moment, at most."""
    changes: Counter[float] = Counter()
    for record in records:
        assert record.start_time
        assert record.end_time
        changes[record.start_time] += 1
        changes[record.end_time] -= 1
    now, most = 0, 0
    for _, change in sorted(changes.items()):
        now += change
        most = max(most, now)
    return most


def times_built(found: Iterable[Built]) -> Mapping[str, int]:
    return Counter(one.partition for one in found)
