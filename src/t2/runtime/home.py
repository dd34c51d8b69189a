"""Where a project's local state lives: `<project>/.t2`, which is also DAGSTER_HOME unless that is set.

.t2/dagster.yaml     how Dagster is set up for one machine; written once, then the user's
.t2/workspace.yaml   where the code server listens; written at each start
.t2/logs/            one file a process
.t2/family.json      pid of the `t2 dev` that runs, locked while it does
.t2/workers/, .t2/live_runs/, .t2/storage/ and so on: Dagster's and the worker's
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from t2.errors import ConfigError

DAGSTER_YAML = """\
# Dagster on one machine, written by `t2 dev` once. Your edits stay.
storage:
  sqlite:
    base_dir: {home}/storage

run_launcher:
  module: t2.definitions.launcher
  class: T2RunLauncher
  config:
    # A run whose process uses more is killed and fails; null for no limit.
    max_memory_mb: 4096

# Dagster's own, with backfill.concurrency for backfills that are started on Dagster's pages.
run_coordinator:
  module: t2.definitions.coordinator
  class: T2RunCoordinator
  config:
    dequeue_interval_seconds: 1
    # A run that waits for a worker to load changed code does not hold up the others.
    dequeue_use_threads: true
    dequeue_num_workers: 4
    # Runs wait for slots of pools after their start, where priority and age decide who comes next.
    block_op_concurrency_limited_runs:
      enabled: false

# Limits of single pools are set on the page Deployment > Concurrency.
concurrency:
  runs:
    max_concurrent_runs: 4
  pools:
    granularity: op

# A run whose process died is failed at the next look, and one that takes too long is ended
# (the tag dagster/max_runtime says how many seconds a run of its own may take).
run_monitoring:
  enabled: true
  poll_interval_seconds: 2
  start_timeout_seconds: 180
  cancel_timeout_seconds: 20
  max_runtime_seconds: 21600
  free_slots_after_run_end_seconds: 5

# T2 decides itself what to try again and when.
run_retries:
  enabled: false

# The planner's sensor waits for news inside its tick and keeps one thread busy.
sensors:
  use_threads: true
  num_workers: 4

retention:
  sensor:
    purge_after_days:
      skipped: 1
      failure: 7
      success: 30
  schedule:
    purge_after_days:
      skipped: 1

# Dagster's own freshness checks visit every asset every 30 s; T2's come from the ledger.
freshness:
  enabled: false

telemetry:
  enabled: false

nux:
  enabled: false
"""

IGNORE = "# Local state of T2 and Dagster\n*\n"


@dataclass(frozen=True)
class Home:
    """The directories of one project's local state; `dagster` is DAGSTER_HOME."""

    project: Path
    state: Path
    dagster: Path

    @property
    def logs(self) -> Path:
        """Where the processes of the family write."""
        return self.state / "logs"

    @property
    def workspace(self) -> Path:
        """The file that tells Dagster's processes where the code server listens."""
        return self.state / "workspace.yaml"

    @property
    def config(self) -> Path:
        """Dagster's own configuration."""
        return self.dagster / "dagster.yaml"

    @property
    def family(self) -> Path:
        """The file that the running family holds locked."""
        return self.state / "family.json"


def home_of(project_dir: Path, environ: Mapping[str, str] | None = None) -> Home:
    """Return where a project keeps its state; creates nothing."""
    project = project_dir.resolve()
    state = project / ".t2"
    given = (os.environ if environ is None else environ).get("DAGSTER_HOME")
    return Home(project, state, Path(given).resolve() if given else state)


def open_home(project_dir: Path, environ: Mapping[str, str] | None = None) -> Home:
    """Create what is missing; ConfigError if the directory or the user's DAGSTER_HOME cannot be used.

    A DAGSTER_HOME that the user set is checked and not written to.
    """
    home = home_of(project_dir, environ)
    if not (home.project / "dbt_project.yml").exists():
        raise ConfigError(
            f"{home.project} has no dbt_project.yml",
            hint="run this in a dbt project, or name one with --project-dir",
        )
    home.logs.mkdir(parents=True, exist_ok=True)
    _write_missing(home.state / ".gitignore", IGNORE)
    if home.dagster == home.state:
        _write_missing(home.config, DAGSTER_YAML.format(home=home.dagster))
    elif not home.config.exists():
        raise ConfigError(
            f"DAGSTER_HOME is {home.dagster}, which has no dagster.yaml",
            hint="unset DAGSTER_HOME to let T2 keep its own in .t2, or write that file",
        )
    return home


def dagster_home(project_dir: Path) -> Path:
    """Return DAGSTER_HOME for a project: the environment's, else the project's `.t2`."""
    return home_of(project_dir).dagster


def prepare_home(project_dir: Path) -> Path:
    """Return DAGSTER_HOME for a project, created and configured."""
    return open_home(project_dir).dagster


def uses_worker(home: Home) -> bool:
    """Whether dagster.yaml names T2's launcher, so that a warm worker is of use."""
    return "T2RunLauncher" in home.config.read_text()


def run_slots(home: Home) -> int:
    """Return how many runs Dagster has at once; without a limit, 10 as in its own default."""
    config = yaml.safe_load(home.config.read_text()) or {}
    coordinator = (config.get("run_coordinator") or {}).get("config") or {}
    runs = (config.get("concurrency") or {}).get("runs") or {}
    slots = runs.get("max_concurrent_runs", coordinator.get("max_concurrent_runs"))
    return slots if isinstance(slots, int) and slots > 0 else 10


def has_storage(home: Home) -> bool:
    """Whether Dagster's SQLite files were made to the end; True for a storage that is none of SQLite's."""
    config = yaml.safe_load(home.config.read_text()) or {}
    storage = config.get("storage") or {"sqlite": {"base_dir": str(home.dagster)}}
    base = (storage.get("sqlite") or {}).get("base_dir")
    if not isinstance(base, str):
        return True
    last = Path(base) / "schedules" / "schedules.db"  # the one that Dagster makes last
    if not last.exists():
        return False
    with closing(sqlite3.connect(last)) as connection:
        try:
            return bool(connection.execute("select 1 from alembic_version").fetchall())
        except sqlite3.OperationalError:
            return False


def _write_missing(path: Path, text: str) -> None:
    if not path.exists():
        path.write_text(text)


def running_family(home: Home) -> int | None:
    """Return the pid of the `t2 dev` that runs for this project, None if none does."""
    try:
        with home.family.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(json.loads(file.read() or '{"pid": 0}')["pid"])
    except FileNotFoundError:
        pass
    return None


@contextmanager
def only_family(home: Home) -> Iterator[None]:
    """Hold the project's family lock, which any death frees; ConfigError if another family runs."""
    with home.family.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"t2 dev already runs for {home.project} (pid {running_family(home)})",
                hint="use that one, or end it with Ctrl-C first",
            ) from None
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid()}))
        file.flush()
        yield
