"""Reading a project as dbt does: its profile, configuration and manifest, and the adapter."""

from __future__ import annotations

import contextvars
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dbt.adapters.cache
from dbt.adapters.factory import FACTORY
from dbt.cli.flags import Flags
from dbt.cli.types import Command
from dbt.config.runtime import RuntimeConfig, load_profile, load_project
from dbt.context.providers import generate_runtime_macro_context
from dbt.context.query_header import generate_query_header_context
from dbt.contracts.graph.manifest import Manifest
from dbt.flags import set_flags
from dbt.mp_context import get_mp_context
from dbt.plugins import set_up_plugin_manager
from dbt_common.exceptions import DbtBaseException

from t2.errors import DbtError
from t2.project.model import Project

GRAPH = "exposures functions groups metrics nodes sources semantic_models saved_queries"

globals_lock = threading.RLock()
# Seconds that the statements of the node that runs in this context have taken so far.
SPENT: contextvars.ContextVar[list[float] | None] = contextvars.ContextVar("t2_spent", default=None)


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


def _timed(execute: Callable[..., Any]) -> Callable[..., Any]:
    """Add up what statements take, their rows fetched, for the node that they belong to."""

    def timed(*arguments: Any, **options: Any) -> Any:
        spent, started = SPENT.get(), time.perf_counter()
        try:
            return execute(*arguments, **options)
        finally:
            if spent is not None:
                spent.append(time.perf_counter() - started)

    return timed


def read_credentials(project: Project) -> Any:
    """Return dbt's credentials of a project's target, without its manifest. DbtError with dbt's message."""
    try:
        with globals_lock:
            set_flags(Flags.from_dict(Command.RUN, options_of(project, project.root)))
            credentials = load_profile(project.root, {}, None, project.target or None).credentials
    except DbtBaseException as error:
        raise DbtError(str(error), where=project.root) from error
    _anchor(credentials, Path(project.root))
    return credentials


def is_local(path: str) -> bool:
    """Return whether a DuckDB path names a file of this machine."""
    return path != ":memory:" and not re.match(r"[A-Za-z]\w+:", path)


def options_of(project: Project, scratch: str) -> dict[str, Any]:
    """Return dbt's flags for a project; dbt writes into the directory `scratch`."""
    return {
        "project_dir": project.root,
        "profiles_dir": project.profiles_dir,
        **({"target": project.target} if project.target else {}),
        "target_path": scratch,
        "log_path": scratch,
        "log_level": "none",
        "log_level_file": "none",
        "version_check": False,
        "send_anonymous_usage_stats": False,
        "write_json": False,
        "populate_cache": False,
        "use_colors": False,
    }


def load_config(project: Project, flags: Any) -> Any:
    """Return dbt's configuration of a project and its profile; connects to nothing."""
    profile = load_profile(project.root, {}, None, project.target or None)
    loaded = load_project(project.root, False, profile, {}, validate=True)
    set_up_plugin_manager(project_name=loaded.project_name)
    config = RuntimeConfig.from_parts(loaded, profile, flags)
    _anchor(config.credentials, Path(project.root))
    config.load_dependencies()
    return config


def _anchor(credentials: Any, root: Path) -> None:
    """Make a DuckDB profile's paths absolute: dbt changes to the project's directory, T2 must not."""
    if credentials.type != "duckdb":
        return
    for database in (credentials, *(credentials.attach or [])):
        if is_local(database.path):
            database.path = str(root / database.path)
    credentials.settings = {"file_search_path": str(root), **(credentials.settings or {})}


def read_manifest(path: Path) -> Any:
    """Read a manifest that dbt wrote, with the links that dbt makes after it has parsed."""
    manifest = Manifest.from_msgpack(path.read_bytes())
    manifest.flat_graph = {kind: _Graph(getattr(manifest, kind)) for kind in GRAPH.split()}
    manifest._lock = threading.Lock()
    return manifest


def _keep_quiet(*event: Any) -> None:
    """Fire no event."""


def load_adapter(config: Any, manifest: Any) -> Any:
    """Make a project's adapter, with what dbt sets up around it and without what slows it down."""
    if config.credentials.type == "duckdb":
        from t2.runtime._dbt import duckdb

        duckdb.install()
    adapter = FACTORY.get_adapter_class_by_name(config.credentials.type)(config, get_mp_context())
    # Two thirds of what a schema of 2,000 relations costs to read: an event for each, which nobody is shown.
    dbt.adapters.cache.fire_event = _keep_quiet
    # dbt's lock lives in shared memory: a forked child that is killed would lock out its siblings.
    adapter.connections.lock = threading.RLock()
    adapter.connections.execute = _timed(adapter.connections.execute)
    adapter.set_macro_context_generator(generate_runtime_macro_context)
    adapter.set_macro_resolver(manifest)
    adapter.connections.set_query_header(generate_query_header_context(adapter.config, manifest))
    return adapter
