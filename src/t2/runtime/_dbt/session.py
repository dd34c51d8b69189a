"""What it takes to run a node without dbt's command line."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import dbt_common.clients.agate_helper  # noqa: F401 - dbt imports it with the first statement
from dbt.adapters.factory import FACTORY
from dbt.adapters.sql.connections import SQLConnectionManager
from dbt.cli.flags import Flags
from dbt.cli.types import Command
from dbt.clients.jinja import GENERIC_TEST_KWARGS_NAME, add_rendered_test_kwargs
from dbt.context.providers import generate_runtime_macro_context
from dbt.events.logging import setup_event_logger
from dbt.flags import get_flags, set_flags
from dbt.materializations.incremental.microbatch import MicrobatchBuilder
from dbt.task.run import MicrobatchBatchRunner, ModelRunner
from dbt.task.seed import SeedRunner
from dbt.task.snapshot import SnapshotRunner
from dbt.task.test import TestRunner
from dbt.tracking import initialize_from_flags
from dbt_common.clients.jinja import CallableMacroGenerator, template_cache
from dbt_common.context import get_invocation_context, set_invocation_context
from dbt_common.events.contextvars import log_contextvars, task_contextvars
from dbt_common.events.event_manager_client import get_event_manager
from dbt_common.exceptions import DbtBaseException, DbtRuntimeError

from t2.project.model import Project
from t2.runtime._dbt import events
from t2.runtime._dbt.loading import (
    SPENT,
    globals_lock,
    load_adapter,
    load_config,
    options_of,
    read_manifest,
)
from t2.runtime._dbt.relations import Relations

__all__ = ["Dbt", "DbtBaseException"]

RUNNERS = {"test": TestRunner, "seed": SeedRunner, "snapshot": SnapshotRunner}


class Dbt:
    """What dbt makes anew in each invocation, made once. Call it in a copy of the context it was made in."""

    def __init__(self, project: Project, scratch: str, on_event: Callable[[Any], None]) -> None:
        self._on_event = on_event
        self._lock = threading.RLock()
        self._schemas: set[Any] = set()
        self._macro_context: dict[str, Any] | None = None
        events.make_debug_events_lazily()
        set_invocation_context({})
        get_invocation_context()._env = dict(os.environ)
        with globals_lock:
            self._flags = Flags.from_dict(Command.RUN, options_of(project, scratch))
            self._install_flags()
            self.config = load_config(project, self._flags)
            self.manifest = read_manifest(Path(project.manifest))
            self._adapter = load_adapter(self.config, self.manifest)
            self._relations = Relations(self._adapter)

    def install(self, target_path: str) -> None:
        """Put this project's flags, adapter and listener into dbt's globals, if they are not there."""
        with globals_lock:
            self._install_flags()
            FACTORY.adapters[self.config.credentials.type] = self._adapter
            self.config.target_path = target_path

    def prepare(self) -> None:
        """Do once what dbt does in each process as its first nodes come: compile macros, find references."""
        for macro in self.manifest.macros.values():
            template_cache.get_node_template(macro)
        with self._lock:
            self._context_of_macros()
        _ = self.manifest.ref_lookup, self.manifest.source_lookup  # made when first asked for
        model = next((node for node in self.manifest.nodes.values() if node.resource_type == "model"), None)
        if model is not None:
            self._rehearse(copy.deepcopy(model))

    def _rehearse(self, model: Any) -> None:
        """Compile a model without its SQL, which could ask the warehouse; classes get their methods."""
        model.raw_code, model.language = "select 1", "sql"
        model.compiled = False
        runner = self._runner(self.config, model, None)
        runner.compile(self.manifest)
        relation = self._relation(model)
        for made in (model, relation, relation.information_schema()):
            made.to_dict(omit_none=False)

    def copy(self, unique_id: str) -> Any:
        """Return a copy of a node: compiling changes it."""
        return copy.deepcopy(self.manifest.nodes[unique_id])

    def is_microbatch(self, unique_id: str) -> bool:
        """Return whether dbt builds a model batch by batch, as its own RunTask decides."""
        config = self.manifest.nodes[unique_id].config
        return bool(
            config.materialized == "incremental"
            and config.incremental_strategy == "microbatch"
            and self.manifest.use_microbatch_batches(project_name=self.config.project_name)
        )

    def execute(
        self, node: Any, variables: Mapping[str, Any], batch: tuple[datetime, datetime] | None
    ) -> tuple[Any, float]:
        """Run a copy of a node; return dbt's RunResult and the seconds that the warehouse took for it."""
        config = self.config
        if variables:
            config = copy.copy(config)
            config.cli_vars = {**config.cli_vars, **variables}
        self.ensure_schema(node)
        runner = self._runner(config, node, batch)
        spent: list[float] = []
        SPENT.set(spent)
        with (
            task_contextvars(project_root=config.project_root),
            log_contextvars(node_info=node.node_info),
        ):
            result = runner.run_with_hooks(self._overlay(node))
        return result, sum(spent)

    def ensure_schema(self, node: Any) -> None:
        """Make a node's schema if it is not there, once until `close`."""
        if node.is_ephemeral_model or not node.is_relational:
            return
        schema = self._relation(node).without_identifier()
        with self._lock:
            if schema in self._schemas:
                return
            with self._adapter.connection_named("t2_schema"):
                if not self._schema_exists(schema):
                    self._create_schema(schema)
            self._schemas.add(schema)

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows of a query, as the database's driver gives them; where it has no cursors, dbt."""
        with self._adapter.connection_named("t2_query"):
            self._connect()
            if not isinstance(self._adapter.connections, SQLConnectionManager):  # BigQuery's
                return self._fetch(sql)
            _, cursor = self._adapter.connections.add_query(sql, auto_begin=False)
            names = [column[0].lower() for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def _fetch(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows of a query as dbt reads them: its types are few, numbers are decimals."""
        _, table = self._adapter.execute(sql, fetch=True)
        names = [name.lower() for name in table.column_names]
        return [dict(zip(names, row, strict=True)) for row in table.rows]

    def call(self, macro: str, arguments: dict[str, Any]) -> Any:
        """Return what a macro of the package `t2` returns."""
        with self._adapter.connection_named("t2_macro"):
            return self._adapter.execute_macro(
                macro, macro_resolver=self.manifest, project="t2", kwargs=arguments
            )

    def test_sql(self, unique_id: str, parent: str, rows: str) -> tuple[str, str, str | None] | None:
        """Return what a generic test of a model or source counts in `rows`, its relation and its `where`.

        None if dbt does more than count and pass at 0, or if a macro on the way is neither dbt's or the
        adapter's nor of the package that the test is named by. A macro that asks the database fails: there
        is no connection.
        """
        node = self.manifest.nodes[unique_id]
        relation = self._relation(self.manifest.nodes.get(parent) or self.manifest.sources[parent])
        if not (self._is_of(node, parent) and self._only_counts(node.config) and self._is_original(node)):
            return None
        arguments = {**node.test_metadata.kwargs, "model": rows}
        plain = {name: copy.deepcopy(value) for name, value in arguments.items() if _is_plain(value)}
        asked = copy.copy(node)
        asked.test_metadata = copy.copy(node.test_metadata)
        asked.test_metadata.kwargs = {name: value for name, value in arguments.items() if name not in plain}
        macro = self.manifest.macros[_test_macro(node)]
        with self._lock:
            context = self._context_of_macros()
            add_rendered_test_kwargs(context, asked)
            rendered = context.pop(GENERIC_TEST_KWARGS_NAME)
            sql = str(CallableMacroGenerator(macro, context)(**plain, **rendered))
        return sql, str(relation), node.config.where

    def _context_of_macros(self) -> dict[str, Any]:
        """Return what macros see that no node calls, made once."""
        if self._macro_context is None:
            # For a copy of any macro: dbt notes in it what is called.
            caller = copy.deepcopy(next(iter(self.manifest.macros.values())))
            self._macro_context = generate_runtime_macro_context(caller, self.config, self.manifest, None)
        return self._macro_context

    def _is_of(self, node: Any, parent: str) -> bool:
        """Whether the rows that a generic test looks at are those of a model or source, as they are."""
        metadata = getattr(node, "test_metadata", None)  # a singular test has none
        if metadata is None or node.package_name != self.config.project_name:
            return False
        model = str(metadata.kwargs.get("model"))
        source = self.manifest.sources.get(parent)
        if source is not None:
            name = f"source('{source.source_name}', '{source.name}')"
            return model == f"{{{{ get_where_subquery({name}) }}}}"
        return model.startswith("{{ get_where_subquery(ref(") and bool(node.attached_node == parent)

    def _only_counts(self, config: Any) -> bool:
        """Whether a test passes when it selects nothing, and keeps nothing."""
        stores = config.store_failures
        return (
            not (self._flags.STORE_FAILURES if stores is None else stores)
            and config.limit is None
            and (config.fail_calc, config.error_if, config.warn_if) == ("count(*)", "!= 0", "!= 0")
            and not config._extra
        )

    def _is_original(self, node: Any) -> bool:
        """Whether nobody replaced a macro that a generic test goes through, by its name or by dispatch."""
        root, adapter = self.config.project_name, self.config.credentials.type
        if _test_macro(node) not in node.depends_on.macros:
            return False
        materialization = self.manifest.find_materialization_macro_by_name(root, "test", adapter)
        subquery = self.manifest.find_macro_by_name("get_where_subquery", root, None)
        todo = [*node.depends_on.macros, materialization.unique_id, subquery.unique_id]
        trusted = {*FACTORY.get_adapter_package_names(adapter), node.test_metadata.namespace}
        seen: set[str] = set()
        while todo:
            macro = self.manifest.macros.get(todo.pop())
            if macro is None or macro.package_name not in trusted:
                return False
            if macro.unique_id not in seen:
                seen.add(macro.unique_id)
                todo += macro.depends_on.macros
        return True

    def serve(self, project_dir: Path | None) -> None:
        """Have the warehouse server of a project execute everything, or this process again (None)."""
        from t2.runtime._dbt import duckdb

        duckdb.serve(Path(self.config.credentials.path), project_dir)

    def forget(self) -> None:
        """Forget which relations the warehouse holds: another process may have made or dropped some."""
        self._relations.forget()
        self._schemas.clear()

    def close(self) -> None:
        """Close all connections of the process and forget what the warehouse holds."""
        self._adapter.cleanup_connections()
        self.forget()
        manager = type(self._adapter.connections)
        if self.config.credentials.type == "duckdb":
            with manager._LOCK:
                if manager._ENV is not None:
                    manager._ENV.close()
                    manager._ENV = None

    def _connect(self) -> None:
        """Open the thread's connection now: dbt does so at the first statement, and trips over the error."""
        try:
            _ = self._adapter.connections.get_thread_connection().handle
        except DbtBaseException:
            raise
        except Exception as error:
            raise DbtRuntimeError(str(error)) from error

    def _install_flags(self) -> None:
        if get_flags() is not self._flags:
            set_flags(self._flags)
            initialize_from_flags(False, self._flags.PROFILES_DIR)
        manager = get_event_manager()
        if self._on_event not in manager.callbacks or manager.loggers:
            setup_event_logger(self._flags, callbacks=[self._on_event])
            events.fire_loud_events_only(manager, self._on_event)

    def _runner(self, config: Any, node: Any, batch: tuple[datetime, datetime] | None) -> Any:
        if batch is None:
            return RUNNERS.get(str(node.resource_type), ModelRunner)(config, self._adapter, node, 1, 1)
        relation = self._relation(node)
        with self._adapter.connection_named("t2_schema"):
            existing = self._adapter.get_relation(relation.database, relation.schema, relation.identifier)
        incremental = existing is not None and existing.type == "table" and not node.config.full_refresh
        return _BatchRunner(
            config, self._adapter, node, 1, 1, 0, {0: batch}, existing is not None, incremental
        )

    def _overlay(self, node: Any) -> Any:
        """Return the manifest with copies of the node's ephemeral ancestors.

        dbt marks an ephemeral model as compiled and keeps its SQL: a second run would lose the CTE and the
        window of its own.
        """
        copies: dict[str, Any] = {}
        todo = list(node.depends_on_nodes)
        while todo:
            parent = self.manifest.nodes.get(todo.pop())
            if parent is not None and parent.is_ephemeral_model and parent.unique_id not in copies:
                copies[parent.unique_id] = copy.deepcopy(parent)
                todo += parent.depends_on_nodes
        if not copies:
            return self.manifest
        # Not copy.copy: dbt's own copying makes a lock in shared memory.
        overlay = object.__new__(type(self.manifest))
        overlay.__dict__.update(self.manifest.__dict__)
        overlay.nodes = {**self.manifest.nodes, **copies}
        return overlay

    def _relation(self, node: Any) -> Any:
        return self._adapter.Relation.create_from(self.config, node)

    def _schema_exists(self, schema: Any) -> bool:
        return bool(self._adapter.check_schema_exists(schema.database, schema.schema))

    def _create_schema(self, schema: Any) -> None:
        try:
            self._adapter.create_schema(schema)
        except DbtBaseException:
            # Two processes: PostgreSQL's `create schema if not exists` fails for the one that comes second.
            if not self._schema_exists(schema):
                raise


class _BatchRunner(MicrobatchBatchRunner):  # type: ignore[misc]
    """dbt's runner of one batch; but an error keeps its message, which dbt's own replaces with "ERROR"."""

    def _execute_model(self, hook: Any, config: Any, model: Any, context: Any, materialization: Any) -> Any:
        batch = MicrobatchBuilder.build_jinja_context_for_batch(model, self.incremental_batch)
        context.update(batch)
        return ModelRunner._execute_model(self, hook, config, model, context, materialization)


def _is_plain(value: Any) -> bool:
    """Whether dbt leaves an argument of a test as it is; it compiles a template for each to find that out."""
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    if isinstance(value, str):
        return not any(sign in value for sign in "{}()")
    return not isinstance(value, Mapping)


def _test_macro(node: Any) -> str:
    """Return the macro that a generic test is, where nobody has replaced it."""
    metadata = node.test_metadata
    return f"macro.{metadata.namespace or 'dbt'}.test_{metadata.name}"
