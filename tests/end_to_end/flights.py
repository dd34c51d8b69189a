"""The flights example in copies of its own, each kept up to date by `t2 dev`, and what must be true of it.

What has to land, and what reads what, is worked out here once more, with plain loops over plain times.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import yaml
from tests.end_to_end.local import is_running, until

from t2.cli.options import current_plan
from t2.ledger.ledger import Ledger
from t2.ledger.storage import locate
from t2.planning.planner import Plan
from t2.planning.verdict import Outcome
from t2.project.model import Grain, Partitioning, Project, Source, Table
from t2.runtime import handover
from t2.runtime.parsing import load_project

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples/nycflights"
NOT_COPIED = ("target", "logs", "dbt_packages", ".t2", "*.duckdb*", "__pycache__")
T2 = "from t2.cli import main; main()"
DBT = "import sys; from dbt.cli.main import dbtRunner; sys.exit(not dbtRunner().invoke(sys.argv[1:]).success)"
LOOK_SECONDS = 0.3
LAND_SECONDS = 240

SPEC = importlib.util.spec_from_file_location("nycflights_feed", EXAMPLE / "feed.py")
feed = importlib.util.module_from_spec(SPEC)
sys.modules["nycflights_feed"] = feed
SPEC.loader.exec_module(feed)

# The register of planes says when it was loaded, and the snapshot of it with it.
STATIC_LOADED_AT = datetime(2013, 1, 1)


def environ() -> dict[str, str]:
    """Everything at its default place: the warehouse and Dagster's home are in the project."""
    others = ("DAGSTER_HOME", "NYCFLIGHTS_DATABASE")
    return {name: value for name, value in os.environ.items() if name not in others}


def make_template(project: Path) -> Path:
    """Copy the example, have failed partitions tried again soon, and parse it."""
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns(*NOT_COPIED))
    file = project / "dbt_project.yml"
    settings = yaml.safe_load(file.read_text())
    for kind in ("models", "seeds", "snapshots"):
        nodes = settings[kind]["nycflights"]
        for folder in nodes.values() if kind == "models" else [nodes]:
            folder.setdefault("+meta", {}).setdefault("t2", {})["retries"] = {"attempts": 5, "wait": "1s"}
    file.write_text(yaml.safe_dump(settings, sort_keys=False))
    load_project(project)
    return project


@dataclass(frozen=True)
class Part:
    """One partition of a table, or a table without (label ""); `wall` is its start on the table's clock."""

    key: str
    label: str = ""
    wall: datetime = datetime.min
    start: datetime = datetime.min
    end: datetime = datetime.max


class Flights:
    """A copy of the example, fed up to `end` (naive, UTC) in the end."""

    def __init__(self, template: Path, path: Path, feeder: Any, end: datetime) -> None:
        self.path = shutil.copytree(template, path)
        self.database = path / "nycflights.duckdb"
        self.end = end
        self.project: Project = load_project(path)
        self.dev: Dev | None = None
        self._feeder = feeder
        self.feeder.load_static(STATIC_LOADED_AT)

    @property
    def feeder(self) -> Any:
        """The one feeder of all copies: reading the year takes two seconds."""
        self._feeder.database = self.database
        return self._feeder

    def load(self, turn: Any, dirty: Collection[datetime] = ()) -> None:
        self.feeder.load(turn, feed.utc_now(), dirty)

    def lose_rows(self, hour: datetime) -> None:
        """Take every second flight of an hour away again, before anybody has seen it."""
        with feed.lock(self.database), duckdb.connect(str(self.database)) as connection:
            connection.execute("delete from raw.flights where time_hour = $1 and flight % 2 = 0", [hour])

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run Python in the project and return what it printed."""
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, cwd=self.path, env=environ(), capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def start(self) -> Dev:
        self.dev = Dev(self.path)
        return self.dev

    @property
    def ledger(self) -> Ledger:
        return _ledger(self.path / ".t2")

    def plan(self) -> Plan:
        return current_plan(self.project, self.ledger)

    def outcomes(self, parts: Collection[Part], plan: Plan | None = None) -> dict[Part, str]:
        """What the planner says of each of these partitions."""
        plan = plan or self.plan()
        places = {part: place for key in self.nodes for place, part in enumerate(self.parts(key))}
        return {part: self._outcome(plan, part, places[part]) for part in parts}

    def _outcome(self, plan: Plan, part: Part, place: int) -> str:
        if part.key in self.project.tables:
            return Outcome(plan.outcomes[part.key][place]).label
        return "landed" if plan.state.tables[part.key].landed[place] else "waiting"

    def wait(self, parts: Collection[Part], seconds: float = LAND_SECONDS) -> None:
        """Wait until these partitions have landed and nothing runs."""
        deadline = time.monotonic() + seconds
        while left := {p: o for p, o in self.outcomes(parts).items() if o != "landed"} or self.active():
            assert time.monotonic() < deadline, f"{len(left)} have not landed: {list(left.items())[:10]}"
            assert self.dev is None or is_running(self.dev.process.pid), self.dev.text()
            time.sleep(LOOK_SECONDS)

    def active(self) -> dict[str, str]:
        return {run.run_id: run.status for run in self.ledger.active_runs()}

    @property
    def nodes(self) -> Mapping[str, Table | Source]:
        return {**self.project.sources, **self.project.tables}

    @cache  # noqa: B019
    def parts(self, key: str) -> list[Part]:
        """The partitions of a table that end by the end of the feed."""
        cut = self.nodes[key].partitioning
        return list(_parts(key, cut, self.end)) if cut else [Part(key)]

    def everything(self) -> list[Part]:
        return [part for key in self.nodes for part in self.parts(key)]

    @cache  # noqa: B019
    def reads(self, part: Part) -> list[Part]:
        """The partitions whose change makes a partition be built again."""
        node = self.nodes[part.key]
        if isinstance(node, Source) or node.is_view:
            return []
        found = []
        for upstream in node.upstreams:
            if node.partitioning is None:
                found += self.parts(upstream.key)
            elif self.nodes[upstream.key].partitioning is not None:
                first = part.wall
                for _ in range(upstream.lookback):
                    first = _before(node.partitioning.grain, first)
                low = _utc(first, node.partitioning)
                high = part.start if upstream.key == part.key else part.end
                found += [one for one in self.parts(upstream.key) if one.start < high and one.end > low]
        return found

    def held_back_by(self, bad: Part) -> set[Part]:
        """The partition and all that reads it, however far. Tables without partitions take what is there."""
        held = {bad}
        grown = True
        while grown:
            more = {
                part
                for part in self.everything()
                if part.label and part not in held and held.intersection(self.reads(part))
            }
            held |= more
            grown = bool(more)
        return held

    def tables(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every table, up to the last partition that ends by the end of the feed."""
        with feed.lock(self.database), duckdb.connect(str(self.database), read_only=True) as connection:
            return {
                key: connection.execute(self._rows_of(key)).fetchall()
                for key in self.nodes
                if self.parts(key)
            }

    def _rows_of(self, key: str) -> str:
        node = self.nodes[key]
        columns = "* exclude (_loaded_at)" if isinstance(node, Source) else "*"
        query = f"select {columns} from {node.schema}.{node.name}"
        if node.partitioning:
            parts = self.parts(key)
            last = _after(node.partitioning.grain, parts[-1].wall) if parts else node.partitioning.begin
            query += f" where {node.partitioning.event_time} < timestamp '{last}'"
        return f"{query} order by all"


class Dev:
    """`t2 dev --no-webserver` as a process."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.log = project / "dev.log"
        self.start()

    def start(self) -> None:
        begin = self.log.stat().st_size if self.log.exists() else 0
        command = [sys.executable, "-c", T2, "dev", "--no-webserver", "--project-dir", str(self.project)]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command, env=environ(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            until(lambda: "Ctrl-C ends it" in self.text()[begin:] or self.process.poll() is not None, 60)
            assert self.process.poll() is None, self.text()
        except AssertionError:
            self.process.kill()
            raise

    def text(self) -> str:
        return self.log.read_text()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)

    def kill(self, role: str) -> float:
        """Kill a process by what it is for, and return when; a killed supervisor is started again."""
        if role == "supervisor":
            self.process.kill()
            killed_at = time.time()
            self.process.wait()
            self.start()
            return killed_at
        pids = until(lambda: self.runs() if role == "run" else self.children(role), 60)
        os.kill(pids[0], signal.SIGKILL)
        return time.time()

    def runs(self) -> list[int]:
        """The processes that execute runs."""
        home = self.project / ".t2"
        pids = [handover.run_pid(home, path.name) for path in (home / "live_runs").glob("*")]
        return [pid for pid in pids if pid]

    def children(self, word: str) -> list[int]:
        """The supervisor's children that have a word in their command line."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == self.process.pid and word in (path / "cmdline").read_text():
                    found.append(int(path.name))
            except OSError:
                continue
        return found


def differences(ours: Mapping[str, list[Any]], theirs: Mapping[str, list[Any]]) -> dict[str, str]:
    """Name the tables that are not equal, with the first rows that only one side has."""
    found = {}
    for key in sorted({*ours, *theirs}):
        if ours.get(key) != theirs.get(key):
            left, right = ours.get(key, []), theirs.get(key, [])
            only = [row for row in left if row not in right], [row for row in right if row not in left]
            found[key] = (
                f"{len(left)} rows, {len(right)} expected; {len(only[0])} too many {only[0][:2]},"
                f" {len(only[1])} missing {only[1][:2]}"
            )
    return found


@cache
def _ledger(home: Path) -> Ledger:
    return Ledger(locate(home))


def _parts(key: str, cut: Partitioning, end: datetime) -> Iterator[Part]:
    """Cut the partitions of a table one after the other."""
    wall = cut.begin
    while True:
        after = _after(cut.grain, wall)
        start, stop = _utc(wall, cut), _utc(after, cut)
        if stop > end:
            return
        label = wall.strftime("%Y-%m-%d-%H:%M" if cut.grain is Grain.HOUR else "%Y-%m-%d")
        yield Part(key, label, wall, start, stop)
        wall = after


def _after(grain: Grain, wall: datetime) -> datetime:
    if grain is Grain.MONTH:
        return (wall + timedelta(days=31)).replace(day=1)
    return (
        wall
        + {Grain.HOUR: timedelta(hours=1), Grain.DAY: timedelta(days=1), Grain.WEEK: timedelta(days=7)}[grain]
    )


def _before(grain: Grain, wall: datetime) -> datetime:
    assert grain is not Grain.MONTH, "no monthly table of the example looks back"
    return wall - (_after(grain, wall) - wall)


def _utc(wall: datetime, cut: Partitioning) -> datetime:
    """A wall time of a table as a naive time of UTC, which the feeder's hours are."""
    zone = "UTC" if cut.grain is Grain.HOUR else cut.timezone
    return wall.replace(tzinfo=ZoneInfo(zone)).astimezone(timezone.utc).replace(tzinfo=None)
