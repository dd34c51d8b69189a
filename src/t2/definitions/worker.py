"""`python -m t2.definitions.worker`: the warm worker of one code location."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import dagster as dg

from t2.definitions import quick_sqlite
from t2.errors import T2Error
from t2.runtime.loaded_code import LoadedCode, current_fingerprint
from t2.runtime.worker import Request, State, Worker, announce

if TYPE_CHECKING:
    from t2.project.model import Project

READY = "t2 worker is ready"

logger = logging.getLogger("t2.worker")


def main() -> NoReturn:
    """Load the code location, then fork a child for each run until the process ends."""
    options = _options()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    home = Path(os.environ["DAGSTER_HOME"])
    state = State.restore_or_open()
    announce(home, options.location, state)
    since, fingerprint = time.time(), current_fingerprint(options.project_dir)
    projects = _record_projects()
    error = _load(options, projects)
    if projects:
        # Exactly what was loaded: this process may itself have been the one that parsed it.
        fingerprint = projects[-1].fingerprint
    loaded = LoadedCode.take(
        options.project_dir, [options.working_directory], fingerprint=fingerprint, since=since
    )
    logger.info("%s after %.1f s", READY, time.time() - since)
    Worker(home, state, change=loaded.change, run=_run, fail=_fail, error=error).serve()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m t2.definitions.worker", description=main.__doc__)
    parser.add_argument("--location", required=True, help="name of the code location")
    parser.add_argument("--module", required=True, help="module that defines it")
    parser.add_argument("--attribute", help="its attribute with the definitions")
    parser.add_argument("--working-directory", type=Path, default=Path.cwd())
    parser.add_argument("--project-dir", type=Path, default=Path.cwd())
    return parser.parse_args()


def _record_projects() -> list[Project]:
    """Return a list that gets each project that the code location loads."""
    from t2.runtime import parsing

    load_project = parsing.load_project
    projects: list[Project] = []

    def recorded(*arguments: Any, **options: Any) -> Project:
        projects.append(load_project(*arguments, **options))
        return projects[-1]

    parsing.load_project = recorded
    return projects


def _load(options: argparse.Namespace, projects: list[Project]) -> str | None:
    """Load Dagster and the definitions; return the traceback if the code cannot be loaded."""
    from t2.definitions._dagster.code_servers import load_code_location
    from t2.definitions._dagster.sqlite import keep_engines

    quick_sqlite.keep_migrations()
    keep_engines()
    # What opening Dagster's storage imports and compiles, each child then has.
    dg.DagsterInstance.get().dispose()
    try:
        load_code_location(
            options.module, options.attribute, str(options.working_directory), options.location
        )
    except Exception:
        traceback.print_exc()
        return traceback.format_exc()
    _load_dbt(projects)
    if threads := [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]:
        logger.warning("forking beside live threads (%s): a lock they hold stays held in a run", threads)
    gc.collect()
    # Keeps the collector of each child from touching, and so copying, what the worker loaded.
    gc.freeze()
    return None


def _load_dbt(projects: list[Project]) -> None:
    """Have dbt ready in every child; if that fails, a child tries it again and its run tells why."""
    if not projects:
        return
    from t2.runtime import build, warehouse  # noqa: F401 - what a step imports
    from t2.runtime.warm import Warm

    for project in projects:
        try:
            Warm.of(project).prepare()
        except T2Error:
            logger.exception("dbt is not warm")


def _run(request: Request) -> None:
    """Execute a run; what it prints is in its compute logs, not in the worker's."""
    from t2.definitions._dagster.runs import execute_run

    with _silence(), _quick_storage():
        execute_run(request["instance"], request["run_id"])


def _fail(request: Request, cause: str) -> None:
    """Record why a run failed whose process is gone."""
    from t2.definitions._dagster.runs import close_run

    with _quick_storage():
        close_run(request["instance"], request["run_id"], cause)


@contextmanager
def _quick_storage() -> Iterator[None]:
    quick_sqlite.keep_connections()
    try:
        yield
    finally:
        quick_sqlite.close()


@contextmanager
def _silence() -> Iterator[None]:
    """Drop what this process writes; an error that leaves the body finds the way to the log open again."""
    with ExitStack() as stack, Path(os.devnull).open("w") as nowhere:
        for stream in (sys.stdout, sys.stderr):
            descriptor = stream.fileno()
            kept = os.dup(descriptor)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, descriptor)
            os.dup2(nowhere.fileno(), descriptor)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()


if __name__ == "__main__":
    main()
