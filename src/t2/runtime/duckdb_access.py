"""A project's DuckDB file for a command: a cursor on it, or a copy of it.

Through the warehouse server where a family runs, else in a turn of this process's own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from t2.errors import ConfigError, DbtError, NotFound
from t2.project.model import Project
from t2.runtime.duckdb_client import is_served
from t2.runtime.turns import Turn, is_locked_out, name_holder


@contextmanager
def cursor(project: Project) -> Iterator[Any]:
    """Open a cursor with the settings, extensions and attached databases of the profile.

    Waits for its turn. ConfigError if the warehouse is not a local DuckDB file, NotFound if there is none
    yet, DbtError if a program that takes no turns keeps it open.
    """
    from t2.runtime._dbt import duckdb as dbt_duckdb

    credentials = _credentials(project)
    root, file = Path(project.root), Path(credentials.path)
    if is_served(root):
        handle = dbt_duckdb.ServerEnvironment(credentials, root).handle()
        try:
            yield handle
        finally:
            handle.close()
        return
    with _turn(file):
        environment = dbt_duckdb.open_here(credentials)
        try:
            yield environment.handle().cursor()
        finally:
            environment.close()


def copy_file(project: Project, target: Path) -> int:
    """Copy the file as it is between two statements of anybody's, and return its bytes.

    `target` is replaced at once: who has the older copy open keeps that. ConfigError, NotFound and DbtError
    as with `cursor`.
    """
    import duckdb

    file = Path(_credentials(project).path)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with _turn(file):
            # Also takes over what a killed process left in the write-ahead log.
            duckdb.connect(str(file)).close()
            shutil.copyfile(file, fresh)
        size = fresh.stat().st_size
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
    return size


def _credentials(project: Project) -> Any:
    from t2.runtime._dbt.loading import is_local, read_credentials

    credentials = read_credentials(project)
    if credentials.type != "duckdb" or not is_local(credentials.path):
        raise ConfigError(
            f"the warehouse of target {project.target} is not a local DuckDB file",
            hint="ask it with the client of its own",
        )
    return credentials


@contextmanager
def _turn(file: Path) -> Iterator[None]:
    """Hold the turn at a file that exists; what a foreign program keeps open is an error that names it."""
    if not file.exists():
        raise NotFound(f"{file} does not exist", hint="nothing was built yet")
    turn = Turn(file)
    turn.take()
    try:
        yield
    except Exception as error:
        if not is_locked_out(str(error)):
            raise
        holder = name_holder(str(error))
        message = f"{holder} has the DuckDB file open"
        raise DbtError(message, where=str(file), hint="close it there") from error
    finally:
        turn.give_up()
