"""`build_defs`: a dbt project as Dagster definitions."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from t2.definitions.assets import Assets
from t2.definitions.compute import compute
from t2.definitions.executor import threads_executor
from t2.definitions.monitor_sensor import monitor_sensor
from t2.definitions.planner_sensor import planner_sensor
from t2.ledger.ledger import Ledger
from t2.ledger.storage import locate
from t2.project.model import Project

# New objects between two passes of the garbage collector; Python's own are 700, 10, 10.
THRESHOLDS = (100_000, 20, 50)


def build_defs(
    project: Project | str | Path,
    *,
    profiles_dir: str | Path | None = None,
    target: str | None = None,
    threads: int | None = None,
    automation: bool = True,
) -> dg.Definitions:
    """Return the definitions of a dbt project: its assets, checks and sensors, and T2's executor.

    A path is loaded with `t2.load_project` and the given profile. `threads` bounds how many steps of a run
    are executed at once; the dbt profile's number if not given. Without `automation` there are no sensors.
    """
    if not isinstance(project, Project):
        from t2.runtime.parsing import load_project

        project = load_project(project, profiles_dir=profiles_dir, target=target)
    with _collector_at_rest():
        assets = Assets(project)
        return dg.Definitions(
            assets=list(assets.definitions(compute(project, assets.tables))),
            sensors=_sensors(project) if automation else [],
            executor=threads_executor(lambda: threads or _profile_threads(project), _limited_pool(project)),
        )


def _sensors(project: Project) -> list[dg.SensorDefinition]:
    return [planner_sensor(project, _open_ledger), monitor_sensor(project, _open_ledger)]


def _open_ledger(instance: dg.DagsterInstance) -> Ledger:
    return Ledger(locate(Path(instance.root_directory)))


def _limited_pool(project: Project) -> str | None:
    """Return the pool that is limited to the profile's threads if nobody has set a limit.

    Not an embedded warehouse's: there the threads of a profile are few because each statement uses all
    cores, and a step that is not in the warehouse would keep the others out.
    """
    return None if project.adapter == "duckdb" else project.pool


def _profile_threads(project: Project) -> int:
    from t2.runtime.warm import Warm

    return Warm.of(project).threads


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Keep the garbage collector from walking definitions that live as long as the process.

    Its passes over three million objects cost 40 % of the time that 2,000 tables take to load. Dagster then
    makes as many again for its repository and jobs, which takes 5.3 s of CPU with Python's own thresholds and
    4.0 with these.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
        # Frozen objects are not torn down at exit, of which nanobind's modules (duckdb) complain loudly.
        atexit.register(gc.unfreeze)
        gc.set_threshold(*THRESHOLDS)
    finally:
        if enabled:
            gc.enable()
