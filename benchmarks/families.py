"""The process families that are measured as a whole: `t2 dev`; Dagster's daemon with its code server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import dagster as dg

from benchmarks.measure import CommandError, environment, module
from benchmarks.synthetic import PROBE
from t2.runtime.home import home_of, running_family

STOCK_YAML = """\
telemetry: {enabled: false}
# Runs start when they are submitted; the default coordinator looks at its queue every 5 seconds.
run_coordinator: {module: dagster.core.run_coordinator, class: DefaultRunCoordinator}
"""


@dataclass(frozen=True)
class Landing:
    """One landing of the probe's source: seconds to the probe's own event, and where they went."""

    total: float
    to_run: float
    to_start: float
    to_table: float


@dataclass(frozen=True)
class Family:
    """A running set-up over one project: what is needed to land the probe and to see its table land."""

    instance: dg.DagsterInstance
    source: dg.AssetKey
    table: dg.AssetKey
    evaluates_updates_once: bool = False

    def land(self, patience: float) -> Landing:
        """Land the newest hour of the probe's source and wait for the same hour of its table."""
        partition = f"{datetime.now(timezone.utc) - timedelta(hours=1):%Y-%m-%d-%H:00}"
        before = self._newest()
        self.instance.report_runless_asset_event(dg.AssetMaterialization(self.source, partition=partition))
        landed = self.instance.get_latest_materialization_event(self.source)
        what = f"{self.table.to_user_string()} {partition}"
        event = wait_for(lambda: self._after(before) or self._failed(), patience, what)
        run = self.instance.get_run_record_by_id(event.run_id)
        if landed is None or run is None:
            raise CommandError(f"the log has no event of {self.source} or no run {event.run_id}")
        created = run.create_timestamp.timestamp()
        started = run.start_time or created
        return Landing(
            *(
                round(seconds, 3)
                for seconds in (
                    event.timestamp - landed.timestamp,
                    created - landed.timestamp,
                    started - created,
                    event.timestamp - started,
                )
            )
        )

    def settle(self, patience: float) -> None:
        """Wait until no run is active, and stock's sensor has seen what the last one did.

        Its condition is "a dependency was updated since this was": a landing that the same evaluation sees as
        the table's own materialization is forgotten for good (measured: 120 s, and nothing).
        """
        active = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
        wait_for(
            lambda: not self.instance.get_runs_count(dg.RunsFilter(statuses=active)), patience, "runs to end"
        )
        if self.evaluates_updates_once:
            for _ in range(2):  # the first of them may have begun before
                seen = cursors(self.instance)
                wait_for(lambda seen=seen: cursors(self.instance) != seen, patience, "the sensor's next tick")

    def _newest(self) -> float:
        event = self.instance.get_latest_materialization_event(self.table)
        return event.timestamp if event else 0.0

    def _failed(self) -> None:
        if runs := self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]), limit=1):
            raise CommandError(f"run {runs[0].run_id} has failed")

    def _after(self, instant: float) -> dg.EventLogEntry | None:
        event = self.instance.get_latest_materialization_event(self.table)
        return event if event and event.timestamp > instant else None


def wait_for(look: Callable[[], object], patience: float, what: str, every: float = 0.05) -> object:
    """Return the first true answer, looking `every` few seconds; CommandError after `patience` seconds."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if answer := look():
            return answer
        time.sleep(every)
    raise CommandError(f"waited {patience:g} s for {what}")


@contextmanager
def stock_family(project: Path, home: Path, patience: float) -> Iterator[Family]:
    """Run stock Dagster's daemon, which starts the code server, until the block ends."""
    (home / "dagster.yaml").write_text(STOCK_YAML)
    env = environment(DAGSTER_HOME=str(home), BENCHMARK_PROJECT=str(project))
    command = module("dagster._daemon", "run", "-m", "benchmarks.stock_location")
    with opened(home) as instance, processes(command, env, home):
        # An automation condition sees no update that was there at its first evaluation.
        wait_for(lambda: any(cursors(instance)), patience, "the sensor's first tick")
        source, table = dg.AssetKey(["raw", f"raw_{PROBE}"]), dg.AssetKey([PROBE])
        yield Family(instance, source, table, evaluates_updates_once=True)


@contextmanager
def t2_family(
    project: Path, home: Path, patience: float, before: Callable[[], None] = lambda: None
) -> Iterator[Family]:
    """Run `t2 dev` without its web server until the block ends.

    Nothing is left of an earlier one; `before` is called when that is removed.
    """
    state = project / ".t2"
    if pid := running_family(home_of(project)):
        raise CommandError(f"t2 dev runs for {project} already: end process {pid}")
    shutil.rmtree(state, ignore_errors=True)
    before()
    env = environment()
    env.pop("DAGSTER_HOME", None)
    t2 = str(Path(sys.executable).parent / "t2")
    with processes([t2, "dev", "--no-webserver", "--project-dir", str(project)], env, home):
        wait_for(lambda: "\nready after" in (home / "log").read_text(), patience, "t2 dev to be ready")
        with dg.DagsterInstance.from_config(str(state)) as instance:
            yield Family(instance, dg.AssetKey(["raw", f"raw_{PROBE}"]), dg.AssetKey(["analytics", PROBE]))


def cursors(instance: dg.DagsterInstance) -> list[str | None]:
    """Return the sensors' cursors; an automation condition sensor's differs after each tick."""
    return [getattr(state.instigator_data, "cursor", None) for state in instance.all_instigator_state()]


@contextmanager
def opened(home: Path) -> Iterator[dg.DagsterInstance]:
    """Open an instance, its tables made now: processes that start together would race to make them."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.get_runs_count()
        instance.all_instigator_state()
        yield instance


@contextmanager
def processes(command: list[str], env: dict[str, str], home: Path) -> Iterator[None]:
    """Run a command with all that it starts in a process group of its own; its output goes to `home/log`."""
    with (home / "log").open("wb") as log:
        family = subprocess.Popen(
            command, env=env, cwd=home, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield
        finally:
            os.killpg(family.pid, signal.SIGINT)
            try:
                family.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(family.pid, signal.SIGKILL)
                family.wait()
