"""Running dbt nodes in a process that already holds dbt, the adapter and the parsed manifest.

The only module that imports dbt's private API; tests/runtime/test_dbt_assumptions.py holds each assumption.
A node costs 20 to 70 ms here and 12 to 25 s on dbt's command line in a project of 2,000 models, because
nothing is parsed, linked or written again.

dbt keeps flags, adapters and the event manager in globals: whoever ran dbt in this process before (a parse
through dbtRunner, another project) has replaced them, so each run puts its own back first.
"""

from __future__ import annotations

import contextvars
import copy
import os
import re
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from dbt.adapters.factory import FACTORY
from dbt.adapters.reference_keys import _ReferenceKey, lowercase
from dbt.cli.flags import Flags
from dbt.cli.types import Command
from dbt.config.runtime import RuntimeConfig, load_profile, load_project
from dbt.context.providers import generate_runtime_macro_context
from dbt.context.query_header import generate_query_header_context
from dbt.contracts.graph.manifest import Manifest
from dbt.events.logging import setup_event_logger
from dbt.flags import get_flags, set_flags
from dbt.materializations.incremental.microbatch import MicrobatchBuilder
from dbt.mp_context import get_mp_context
from dbt.plugins import set_up_plugin_manager
from dbt.task.run import MicrobatchBatchRunner, ModelRunner
from dbt.task.seed import SeedRunner
from dbt.task.snapshot import SnapshotRunner
from dbt.task.test import TestRunner
from dbt.tracking import initialize_from_flags
from dbt_common.context import get_invocation_context, set_invocation_context
from dbt_common.events.contextvars import log_contextvars, task_contextvars
from dbt_common.events.event_manager_client import get_event_manager
from dbt_common.exceptions import DbtBaseException

from t2.errors import DbtError, NotFound
from t2.project.model import Project
from t2.runtime.result import NodeResult

__all__ = ["NodeResult", "Warm"]

OnLog = Callable[[str, str], None]
Window = tuple[datetime, datetime]

ANSI = re.compile(r"\x1b\[[0-9;]*m")
QUIET_LEVELS = ("debug", "test")

_listener: contextvars.ContextVar[OnLog | None] = contextvars.ContextVar("t2_listener", default=None)
_globals = threading.RLock()
_known: dict[tuple[str, ...], Warm] = {}


class Warm:
    """dbt, prepared for one project: `Warm.of(project)` shares one in the process; thread-safe.

    It may be forked as long as no connection is open. What dbt compiles is written to a directory of each
    process's own.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self._lock = threading.RLock()
        self._schemas: set[Any] = set()
        self._scratch = tempfile.mkdtemp(prefix="t2-dbt-")
        weakref.finalize(self, _remove, self._scratch, os.getpid())
        self._context = contextvars.copy_context()
        try:
            self._context.run(self._load)
        except DbtBaseException as error:
            raise DbtError(str(error), where=project.root) from error

    @classmethod
    def load(cls, project: Project) -> Warm:
        """Load a project's manifest and profile; connects to nothing. DbtError with dbt's message."""
        return cls(project)

    @classmethod
    def of(cls, project: Project) -> Warm:
        """Return the process's one `Warm` for what was parsed, whichever `Project` object describes it."""
        with _globals:
            key = (project.root, project.profiles_dir, project.target, project.fingerprint)
            if key not in _known:
                _known[key] = cls(project)
            return _known[key]

    @property
    def file(self) -> Path | None:
        """The DuckDB file of the warehouse, None for any other warehouse."""
        credentials = self._config.credentials
        return (
            Path(credentials.path) if credentials.type == "duckdb" and _is_local(credentials.path) else None
        )

    @property
    def adapter_type(self) -> str:
        """dbt's name of the adapter."""
        return str(self._config.credentials.type)

    def depends_on(self, unique_id: str) -> tuple[str, ...]:
        """Return the unique ids of what a node reads, ephemeral models included."""
        return tuple(self._manifest.nodes[unique_id].depends_on.nodes)

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
        """
        if unique_id not in self._manifest.nodes:
            raise NotFound(f"dbt knows no node {unique_id}", where=self.project.root)
        node = copy.deepcopy(self._manifest.nodes[unique_id])
        if where:
            node.config.where = f"({node.config.where}) and ({where})" if node.config.where else where
        if full_refresh:
            node.config.full_refresh = True
        with self._installed():
            return self._context.copy().run(self._run, node, variables or {}, batch, on_log)

    def open(self, unique_ids: list[str]) -> None:
        """Fill dbt's relation cache for some nodes' schemas at once and make missing schemas.

        Not needed before `run`, which does both for its own node.
        """
        with self._installed():
            nodes = [self._manifest.nodes[unique_id] for unique_id in unique_ids]
            for node in nodes:
                self._context.copy().run(self._ensure_schema, node)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query as the database's driver gives them; DbtError with its message."""
        with self._installed(), self._errors():
            return self._context.copy().run(self._query, sql)

    def call(self, macro: str, **arguments: Any) -> Any:
        """Return what a macro of the dbt package returns."""
        with self._installed(), self._errors():
            return self._context.copy().run(self._call, macro, arguments)

    def close(self) -> None:
        """Close every connection and forget the relations: a DuckDB file is then unlocked."""
        self._adapter.cleanup_connections()
        self._adapter.cache.clear()
        self._schemas.clear()
        if self.adapter_type == "duckdb":
            manager = type(self._adapter.connections)
            with manager._LOCK:
                if manager._ENV is not None:
                    manager._ENV.close()
                    manager._ENV = None

    def _load(self) -> None:
        set_invocation_context({})
        get_invocation_context()._env = dict(os.environ)
        with _globals:
            self._flags = Flags.from_dict(Command.RUN, self._options())
            self._install_flags()
            profile = load_profile(self.project.root, {}, None, self.project.target or None)
            project = load_project(self.project.root, False, profile, {}, validate=True)
            set_up_plugin_manager(project_name=project.project_name)
            self._config = RuntimeConfig.from_parts(project, profile, self._flags)
            _anchor(self._config.credentials, Path(self.project.root))
            self._config.load_dependencies()
            self._manifest = _read_manifest(Path(self.project.manifest))
            self._adapter = self._make_adapter()

    def _options(self) -> dict[str, Any]:
        return {
            "project_dir": self.project.root,
            "profiles_dir": self.project.profiles_dir,
            **({"target": self.project.target} if self.project.target else {}),
            "target_path": self._scratch,
            "log_path": self._scratch,
            "log_level": "none",
            "log_level_file": "none",
            "version_check": False,
            "send_anonymous_usage_stats": False,
            "write_json": False,
            "populate_cache": False,
            "use_colors": False,
        }

    def _make_adapter(self) -> Any:
        adapter = FACTORY.get_adapter_class_by_name(self._config.credentials.type)(
            self._config, get_mp_context()
        )
        # dbt's lock lives in shared memory: a forked child that is killed would lock out its siblings.
        adapter.connections.lock = threading.RLock()
        adapter.get_relation = _CachedLookup(adapter)
        adapter.set_macro_context_generator(generate_runtime_macro_context)
        adapter.set_macro_resolver(self._manifest)
        adapter.connections.set_query_header(generate_query_header_context(self._config, self._manifest))
        return adapter

    @contextmanager
    def _installed(self) -> Iterator[None]:
        with _globals:
            self._install()
        yield

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except DbtBaseException as error:
            raise DbtError(str(error)) from error

    def _install(self) -> None:
        """Put this project's flags, adapter and log callback into dbt's globals, if they are not there."""
        self._install_flags()
        FACTORY.adapters[self.adapter_type] = self._adapter
        # A forked child must not write where its parent and siblings do.
        self._config.target_path = str(Path(self._scratch) / str(os.getpid()))

    def _install_flags(self) -> None:
        if get_flags() is not self._flags:
            set_flags(self._flags)
            initialize_from_flags(False, self._flags.PROFILES_DIR)
        manager = get_event_manager()
        if _forward not in manager.callbacks or manager.loggers:
            setup_event_logger(self._flags, callbacks=[_forward])

    def _run(
        self, node: Any, variables: Mapping[str, Any], batch: Window | None, on_log: OnLog | None
    ) -> NodeResult:
        _listener.set(on_log)
        config = self._config
        if variables:
            config = copy.copy(config)
            config.cli_vars = {**config.cli_vars, **variables}
        started = time.time()
        with self._errors():
            self._ensure_schema(node)
            runner = self._runner(config, node, batch)
            with (
                task_contextvars(project_root=config.project_root),
                log_contextvars(node_info=node.node_info),
            ):
                result = runner.run_with_hooks(self._overlay(node))
        return _result(node.unique_id, result, started)

    def _runner(self, config: Any, node: Any, batch: Window | None) -> Any:
        if batch is not None:
            relation = self._relation(node)
            with self._adapter.connection_named(node.unique_id):
                existing = self._adapter.get_relation(relation.database, relation.schema, relation.identifier)
            again = existing is not None and existing.type == "table" and not node.config.full_refresh
            return _BatchRunner(config, self._adapter, node, 1, 1, 0, {0: batch}, existing is not None, again)
        runners = {"test": TestRunner, "seed": SeedRunner, "snapshot": SnapshotRunner}
        return runners.get(str(node.resource_type), ModelRunner)(config, self._adapter, node, 1, 1)

    def _overlay(self, node: Any) -> Any:
        """Return the manifest with copies of the node and its ephemeral ancestors.

        dbt marks an ephemeral model as compiled and keeps its SQL: a second run would lose the CTE and the
        window of its own.
        """
        copies: dict[str, Any] = {}
        todo = list(node.depends_on.nodes)
        while todo:
            parent = self._manifest.nodes.get(todo.pop())
            if parent is not None and parent.is_ephemeral_model and parent.unique_id not in copies:
                copies[parent.unique_id] = copy.deepcopy(parent)
                todo += parent.depends_on.nodes
        if not copies:
            return self._manifest
        # Not copy.copy: dbt's own copying makes a lock in shared memory and forgets the lookups by name.
        overlay = object.__new__(type(self._manifest))
        overlay.__dict__.update(self._manifest.__dict__)
        overlay.nodes = {**self._manifest.nodes, **copies}
        return overlay

    def _relation(self, node: Any) -> Any:
        return self._adapter.Relation.create_from(self._config, node)

    def _ensure_schema(self, node: Any) -> None:
        if node.is_ephemeral_model or not node.is_relational:
            return
        schema = self._relation(node).without_identifier()
        with self._lock:
            if schema in self._schemas:
                return
            with self._adapter.connection_named("t2_schema"):
                if not self._adapter.check_schema_exists(schema.database, schema.schema):
                    self._create_schema(schema)
                # dbt takes a schema for cached as soon as it holds one relation of it.
                self._adapter.list_relations(schema.database, schema.schema)
            self._schemas.add(schema)

    def _create_schema(self, schema: Any) -> None:
        try:
            self._adapter.create_schema(schema)
        except DbtBaseException:
            # Two processes: PostgreSQL's `create schema if not exists` fails for the one that comes second.
            if not self._adapter.check_schema_exists(schema.database, schema.schema):
                raise

    def _query(self, sql: str) -> list[tuple[Any, ...]]:
        with self._adapter.connection_named("t2_query"):
            _, cursor = self._adapter.add_query(sql, auto_begin=False)
            return [tuple(row) for row in cursor.fetchall()]

    def _call(self, macro: str, arguments: dict[str, Any]) -> Any:
        with self._adapter.connection_named("t2_macro"):
            return self._adapter.execute_macro(
                macro, macro_resolver=self._manifest, project="t2", kwargs=arguments
            )


class _BatchRunner(MicrobatchBatchRunner):  # type: ignore[misc]
    """dbt's runner of one batch; but an error keeps its message, which dbt's own replaces with "ERROR"."""

    def _execute_model(self, hook: Any, config: Any, model: Any, context: Any, materialization: Any) -> Any:
        context.update(
            MicrobatchBuilder.build_jinja_context_for_batch(
                model=model, incremental_batch=self.incremental_batch
            )
        )
        return ModelRunner._execute_model(self, hook, config, model, context, materialization)


class _CachedLookup:
    """`adapter.get_relation` by key: dbt's own scan is half of a model's time at 2,000 relations."""

    def __init__(self, adapter: Any) -> None:
        self._cache = adapter.cache
        self._scan = adapter.get_relation

    def __call__(self, database: str | None, schema: str, identifier: str) -> Any:
        key = _ReferenceKey(lowercase(database), lowercase(schema), lowercase(identifier))
        found = self._cache.relations.get(key)
        if found is not None and found.inner.identifier == identifier:
            return found.inner
        return self._scan(database, schema, identifier)


class _Graph(Mapping[str, Any]):
    """One kind of node in the macros' `graph`, each made when asked for; dbt makes all 14,000 at once."""

    def __init__(self, nodes: Mapping[str, Any]) -> None:
        self._nodes = nodes
        self._made: dict[str, Any] = {}

    def __getitem__(self, unique_id: str) -> Any:
        if unique_id not in self._made:
            self._made[unique_id] = self._nodes[unique_id].to_dict(omit_none=False)
        return self._made[unique_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)


GRAPH = [
    "exposures",
    "functions",
    "groups",
    "metrics",
    "nodes",
    "sources",
    "semantic_models",
    "saved_queries",
]


def _read_manifest(path: Path) -> Any:
    manifest = Manifest.from_msgpack(path.read_bytes())
    manifest.flat_graph = {kind: _Graph(getattr(manifest, kind)) for kind in GRAPH}
    manifest._lock = threading.Lock()
    return manifest


def _forward(event: Any) -> None:
    """Pass what dbt logs while a node runs to the node's own listener; the event is fired in its thread."""
    listener = _listener.get()
    if listener is not None and event.info.level not in QUIET_LEVELS:
        listener(event.info.level, ANSI.sub("", event.info.msg))


def _result(unique_id: str, result: Any, started: float) -> NodeResult:
    response = dict(result.adapter_response or {})
    rows = response.get("rows_affected")
    return NodeResult(
        unique_id=unique_id,
        status=str(result.status),
        message=result.message or "",
        started_at=datetime.fromtimestamp(started, timezone.utc),
        completed_at=datetime.now(timezone.utc),
        execution_seconds=float(result.execution_time),
        failures=result.failures,
        rows_affected=int(rows) if rows is not None and int(rows) >= 0 else None,
        compiled_code=getattr(result.node, "compiled_code", None),
        adapter_response=response,
    )


def _anchor(credentials: Any, root: Path) -> None:
    """Make a DuckDB profile's paths absolute: dbt changes to the project's directory, T2 must not."""
    if credentials.type != "duckdb":
        return
    for database in (credentials, *(credentials.attach or [])):
        if _is_local(database.path):
            database.path = str(root / database.path)
    credentials.settings = {"file_search_path": str(root), **(credentials.settings or {})}


def _is_local(path: str) -> bool:
    return path != ":memory:" and not re.match(r"[A-Za-z]\w+:", path)


def _remove(scratch: str, owner: int) -> None:
    """Remove what dbt compiled: all of it in the process that loaded, in a fork its own directory."""
    path = Path(scratch) if os.getpid() == owner else Path(scratch) / str(os.getpid())
    shutil.rmtree(path, ignore_errors=True)
