"""A process that is ready to run dbt nodes: it already holds dbt, the adapter and the parsed manifest.

A node costs 20 to 70 ms here and 12 to 25 s on dbt's command line in a project of 2,000 models, because
nothing is parsed, linked or written again.
"""

from __future__ import annotations

import contextvars
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from t2.errors import DbtError, NotFound
from t2.project.model import Project
from t2.runtime._dbt.loading import is_local
from t2.runtime._dbt.session import Dbt, DbtBaseException
from t2.runtime.duckdb_client import LOST
from t2.runtime.nodes import NodeResult

OnLog = Callable[[str, str], None]
Window = tuple[datetime, datetime]
TestSql = tuple[str, str, "str | None"]
T = TypeVar("T")

ANSI = re.compile(r"\x1b\[[0-9;]*m")
QUIET_LEVELS = ("debug", "test")
# How often what only reads is tried when the warehouse server is lost; builds are tried again by `build.py`.
READ_ATTEMPTS = 3

_listener: contextvars.ContextVar[OnLog | None] = contextvars.ContextVar("t2_listener", default=None)
_known: dict[tuple[str, ...], Warm] = {}
_guard = threading.Lock()


class Warm:
    """dbt, prepared for one project: `Warm.of(project)` shares one in the process; thread-safe.

    It may be forked as long as no connection is open. What dbt compiles is written to a directory of each
    process's own. Paths in a DuckDB profile are relative to the project, as with dbt.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self._test_sql: dict[tuple[str, str, str], TestSql | None] = {}
        self._scratch = tempfile.mkdtemp(prefix="t2-dbt-")
        weakref.finalize(self, _remove, self._scratch, os.getpid())
        self._context = contextvars.copy_context()
        try:
            self._dbt: Dbt = self._context.run(Dbt, project, self._scratch, _forward)
        except DbtBaseException as error:
            raise DbtError(str(error), where=project.root) from error

    @classmethod
    def load(cls, project: Project) -> Warm:
        """Load a project's manifest and profile; connects to nothing. DbtError with dbt's message."""
        return cls(project)

    @classmethod
    def of(cls, project: Project) -> Warm:
        """Return the process's one `Warm` for what was parsed, whichever `Project` object describes it."""
        key = (project.root, project.profiles_dir, project.target, project.fingerprint)
        with _guard:
            if key not in _known:
                _known[key] = cls(project)
            return _known[key]

    @property
    def file(self) -> Path | None:
        """The DuckDB file of the warehouse, None for any other warehouse."""
        credentials = self._dbt.config.credentials
        local = self.adapter_type == "duckdb" and is_local(credentials.path)
        return Path(credentials.path) if local else None

    @property
    def adapter_type(self) -> str:
        """dbt's name of the adapter."""
        return str(self._dbt.config.credentials.type)

    @property
    def threads(self) -> int:
        """How many nodes the dbt profile allows at once."""
        return int(self._dbt.config.threads)

    def prepare(self) -> None:
        """Do what the first nodes of a process need, in a second or two; connects to nothing.

        A forked process then has it: its first node takes a third of the time.
        """
        self._inside(self._dbt.prepare)

    def is_microbatch(self, unique_id: str) -> bool:
        """Return whether dbt builds a model batch by batch."""
        return self._inside(lambda: self._dbt.is_microbatch(unique_id))

    def run(
        self,
        unique_id: str,
        *,
        variables: Mapping[str, Any] | None = None,
        where: str | None = None,
        batch: Window | None = None,
        full_refresh: bool = False,
        on_log: OnLog | None = None,
    ) -> NodeResult:
        """Build or test one node; what the SQL does wrong is in the result, DbtError is for the rest.

        `where` restricts a test, beside its own `where`; `batch` is the window of a microbatch model, in UTC.
        `on_log` takes the level and text of what dbt logs on the way.
        """
        if unique_id not in self._dbt.manifest.nodes:
            raise NotFound(f"dbt knows no node {unique_id}", where=self.project.root)
        started = time.time()
        for attempt in range(READ_ATTEMPTS):
            node = self._dbt.copy(unique_id)
            if where:
                node.config.where = f"({node.config.where}) and ({where})" if node.config.where else where
            if full_refresh:
                node.config.full_refresh = True
            result, spent = self._execute(node, variables or {}, batch, on_log)
            lost = str(node.resource_type) == "test" and LOST in (result.message or "")
            if not lost or attempt + 1 == READ_ATTEMPTS:
                break
        return _result(unique_id, result, started, spent)

    def _execute(
        self, node: Any, variables: Mapping[str, Any], batch: Window | None, on_log: OnLog | None
    ) -> tuple[Any, float]:
        """Run a copy of a node; a build that fails on BigQuery leaves no table behind.

        There a temporary table is one like any other. It expires after 12 hours if the process dies.
        """
        leaves = self.adapter_type == "bigquery" and node.config.materialized == "partitioned"
        build = secrets.token_hex(6)
        if leaves and "t2" in variables:
            variables = {"t2": {**variables["t2"], "build": build}}
        built = False
        try:
            result, spent = self._inside(partial(self._dbt.execute, node, variables, batch), on_log)
            built = str(result.status) == "success"
            return result, spent
        finally:
            if leaves and not built:
                with suppress(DbtError):
                    self.call("bigquery_sweep", unique_id=node.unique_id, build=build)

    def test_sql(self, unique_id: str, parent: str, *, rows: str) -> TestSql | None:
        """Return how a generic test of `parent` finds failures: SQL over `rows`, relation, own `where`.

        None if anything but the number of rows that it selects decides the outcome, or if dbt's own macros
        are not all that makes the SQL.
        """
        key = (unique_id, parent, rows)
        if key not in self._test_sql:
            try:
                found = self._inside(lambda: self._dbt.test_sql(*key))
            except Exception:  # whatever a macro does wrong: dbt's own run of the test tells it
                found = None
            self._test_sql[key] = found
        return self._test_sql[key]

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows of a query by column name in lower case; DbtError with the database's message."""
        return self._reading(lambda: self._dbt.query(sql))

    def call(self, macro: str, **arguments: Any) -> Any:
        """Return what a macro of the dbt package returns."""
        return self._reading(lambda: self._dbt.call(macro, arguments))

    def serve(self, project_dir: Path | None) -> None:
        """Have the warehouse server of a project execute on DuckDB, or this process again (None)."""
        self._dbt.serve(project_dir)

    def forget(self) -> None:
        """Forget which relations the warehouse holds."""
        self._dbt.forget()

    def close(self) -> None:
        """Close every connection and forget the relations: a DuckDB file is then unlocked."""
        self._dbt.close()

    def _reading(self, work: Callable[[], T]) -> T:
        """Do some work that only reads, again if the warehouse server was started anew meanwhile."""
        for _ in range(READ_ATTEMPTS - 1):
            try:
                return self._inside(work)
            except DbtError as error:
                if LOST not in error.message:
                    raise
        return self._inside(work)

    def _inside(self, work: Callable[[], T], on_log: OnLog | None = None) -> T:
        """Do some work as dbt finds a process of its own: globals, context variables, a place to write."""
        # A forked child must not write where its parent and siblings do.
        self._dbt.install(str(Path(self._scratch) / str(os.getpid())))
        context = self._context.copy()
        context.run(_listener.set, on_log)
        with _errors():
            return context.run(work)


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except DbtBaseException as error:
        raise DbtError(str(error)) from error


def _forward(event: Any) -> None:
    """Pass what dbt logs while a node runs to the node's own listener; the event is fired in its thread."""
    listener = _listener.get()
    if listener is not None and event.info.level not in QUIET_LEVELS:
        listener(event.info.level, ANSI.sub("", event.info.msg))


def _result(unique_id: str, result: Any, started: float, warehouse_seconds: float) -> NodeResult:
    response = dict(result.adapter_response or {})
    rows = response.get("rows_affected")
    return NodeResult(
        unique_id=unique_id,
        status=str(result.status),
        message=result.message or "",
        started_at=datetime.fromtimestamp(started, timezone.utc),
        completed_at=datetime.now(timezone.utc),
        execution_seconds=float(result.execution_time),
        warehouse_seconds=warehouse_seconds,
        failures=result.failures,
        rows_affected=int(rows) if rows is not None and int(rows) >= 0 else None,
        compiled_code=getattr(result.node, "compiled_code", None),
        adapter_response=response,
    )


def _remove(scratch: str, owner: int) -> None:
    """Remove what dbt compiled: all of it in the process that loaded, in a fork its own directory."""
    path = Path(scratch) if os.getpid() == owner else Path(scratch) / str(os.getpid())
    shutil.rmtree(path, ignore_errors=True)
