"""dbt-duckdb's private API: where its statements are executed, here or in the warehouse server.

The warehouse server needs no more of dbt than this.
"""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

from dbt.adapters.contracts.connection import AdapterResponse
from dbt.adapters.duckdb import environments
from dbt.adapters.duckdb.environments import Environment
from dbt_common.exceptions import DbtBaseException, DbtRuntimeError

from t2.runtime.duckdb_client import ServerSession

_here = environments.create
_served: dict[str, Path] = {}


def install() -> None:
    """Have dbt-duckdb ask this module where to execute."""
    environments.create = _create


def serve(file: Path, project_dir: Path | None) -> None:
    """Have a file's statements executed by the server of a project, or in this process again (None)."""
    if project_dir is None:
        _served.pop(str(file), None)
    else:
        _served[str(file)] = project_dir


def open_here(credentials: Any) -> Any:
    """Return dbt-duckdb's own environment, which opens the file with its first handle."""
    return _here(credentials)


def message_of(error: Exception) -> tuple[str, str]:
    """Return the name and the message of an error, of DuckDB's own where dbt has wrapped it."""
    if isinstance(error, DbtBaseException) and error.__cause__ is not None:
        return type(error.__cause__).__name__, str(error.__cause__)
    return type(error).__name__, error.msg if isinstance(error, DbtRuntimeError) else str(error)


def _create(credentials: Any) -> Any:
    project_dir = _served.get(credentials.path)
    return _here(credentials) if project_dir is None else ServerEnvironment(credentials, project_dir)


class ServerEnvironment(Environment):  # type: ignore[misc]
    """dbt-duckdb's way to execute, through the server, which holds an environment of dbt-duckdb's own."""

    def __init__(self, credentials: Any, project_dir: Path) -> None:
        super().__init__(credentials)
        self._project_dir = project_dir
        sent = copy.copy(credentials)
        # What differs between targets of one file and is nothing to the file.
        sent.schema, sent.database, sent.keep_open = "main", "main", True
        self._sent = pickle.dumps(sent)

    def handle(self) -> ServerSession:
        """Return a new session, which connects with its first statement.

        Not here: dbt-duckdb holds a lock meanwhile that the process's other nodes need to end.
        """
        return ServerSession(self._project_dir, self._sent)

    def submit_python_job(
        self, handle: ServerSession, parsed_model: dict[str, Any], compiled_code: str
    ) -> AdapterResponse:
        """Run a Python model in the server."""
        try:
            handle.request("python", {"alias": parsed_model["alias"]}, compiled_code)
        except RuntimeError as error:
            raise DbtRuntimeError(str(error)) from error
        return AdapterResponse(_message="OK")

    def load_source(self, plugin_name: str, source_config: Any) -> None:
        """Have a plugin of the server load a source."""
        self._once("load", plugin_name, source_config)

    def store_relation(self, plugin_name: str, target_config: Any) -> None:
        """Have a plugin of the server store what a model made."""
        self._once("store", plugin_name, replace(target_config, config=_settings(target_config)))

    def _once(self, *request: Any) -> None:
        session = self.handle()
        try:
            session.request(*request)
        finally:
            session.close()

    @classmethod
    def is_cancelable(cls) -> bool:
        """Return that a statement can be interrupted."""
        return True

    @classmethod
    def cancel(cls, connection: Any) -> None:
        """Interrupt a connection's statement."""
        connection.handle.interrupt()


def _settings(target_config: Any) -> dict[str, Any]:
    """Return what a plugin may ask of a model's config: dbt's own object cannot be sent."""
    config = target_config.config
    return dict(config if isinstance(config, dict) else config.model.config.to_dict())
