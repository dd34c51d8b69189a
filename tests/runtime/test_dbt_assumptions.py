"""What T2 assumes of dbt's private API: an upgrade that breaks one of these breaks `runtime/_dbt/` only."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
import pytest
from dbt.adapters.base.impl import BaseAdapter
from dbt.adapters.factory import FACTORY
from dbt.contracts.graph.manifest import Manifest
from dbt.materializations.incremental.microbatch import MicrobatchBuilder
from dbt.task.run import MicrobatchBatchRunner, ModelRunner
from dbt_common.events.event_manager_client import get_event_manager

from t2.runtime._dbt.session import Dbt
from t2.runtime.turns import is_locked_out, name_holder
from t2.runtime.warm import Warm


@pytest.fixture
def dbt(warm: Warm) -> Dbt:
    return warm._dbt


def test_the_versions_are_those_that_this_was_written_for() -> None:
    assert version("dbt-core").startswith("1.11.")
    assert version("dbt-duckdb").startswith("1.11.")


def test_a_parsed_manifest_can_be_read_back_and_run(dbt: Dbt) -> None:
    assert isinstance(dbt.manifest, Manifest)
    assert {"dbt", "dbt_duckdb", "t2"} <= {macro.package_name for macro in dbt.manifest.macros.values()}


def test_calls_of_ref_in_our_macros_are_dependencies(dbt: Dbt) -> None:
    """While it parses, dbt renders a model that calls macros, and records the refs that they make."""
    assert dbt.manifest.nodes["model.shop.orders"].depends_on.nodes == ["source.shop.raw.orders"]
    assert dbt.manifest.nodes["model.shop.balance"].depends_on.nodes == ["model.shop.orders"]
    assert dbt.manifest.nodes["test.shop.orders_are_positive"].depends_on.nodes == ["model.shop.orders"]


def test_the_graph_of_macros_is_read_through_three_kinds_of_access(dbt: Dbt) -> None:
    """`graph` is a dictionary of dictionaries in dbt; ours makes its values when asked."""
    nodes = dbt.manifest.flat_graph["nodes"]
    assert nodes.get("model.shop.orders")["config"]["event_time"] == "ordered_on"
    assert nodes["model.shop.orders"] == dbt.manifest.nodes["model.shop.orders"].to_dict(omit_none=False)
    assert len(list(nodes.values())) == len(dbt.manifest.nodes)


def test_variables_are_looked_up_in_the_config_of_the_run(warm: Warm) -> None:
    result = warm.run("model.shop.orders", variables={"t2_start": "2024-01-02", "t2_end": "2024-01-03"})
    assert "2024-01-02" in str(result.compiled_code)
    assert warm._dbt.config.cli_vars == {}


def test_the_signatures_that_are_overridden_or_called() -> None:
    def parameters(function: Any) -> list[str]:
        return list(inspect.signature(function).parameters)

    assert parameters(ModelRunner._execute_model) == [
        "self", "hook_ctx", "context_config", "model", "context", "materialization_macro",
    ]  # fmt: skip
    assert parameters(MicrobatchBatchRunner.__init__)[1:] == [
        "config", "adapter", "node", "node_index", "num_nodes",
        "batch_idx", "batches", "relation_exists", "incremental_batch",
    ]  # fmt: skip
    assert parameters(BaseAdapter.get_relation) == ["self", "database", "schema", "identifier"]
    assert parameters(MicrobatchBuilder.build_jinja_context_for_batch) == ["model", "incremental_batch"]


@pytest.mark.parametrize(("fixture", "schema"), [("warm", "main"), ("postgres_warm", "public")])
def test_a_lookup_by_name_finds_what_dbts_list_has(
    fixture: str, schema: str, request: pytest.FixtureRequest
) -> None:
    warm = request.getfixturevalue(fixture)
    adapter = warm._dbt._adapter
    database = warm._dbt.config.credentials.database

    def found(name: str) -> tuple[object, object] | None:
        relation = adapter.get_relation(database, schema, name)
        return relation and (str(relation), relation.type)

    def look() -> None:
        with adapter.connection_named("here"):
            adapter.execute(f"create table {schema}.one_table (x integer)", auto_begin=True)
            adapter.execute(f"create view {schema}.one_view as select 1 as x", auto_begin=True)
            adapter.execute(f'create table {schema}."Upper" (x integer)', auto_begin=True)
            adapter.commit_if_has_connection()
            names = ["one_table", "one_view", "Upper", "nothing", "it's"]
            warm.forget()
            one_by_one = [found(name) for name in names]
            assert len(adapter.cache.relations) == 3
            listed = {relation.identifier for relation in adapter.list_relations(database, schema)}
            assert {"one_table", "one_view", "Upper"} <= listed
            warm.forget()
            adapter.list_relations(database, schema)
            assert one_by_one == [found(name) for name in names]
            assert [relation and relation[1] for relation in one_by_one] == [
                "table", "view", "table", None, None,
            ]  # fmt: skip
            for kind, name in (("table", "one_table"), ("view", "one_view"), ("table", '"Upper"')):
                adapter.execute(f"drop {kind} {schema}.{name}", auto_begin=True)
            adapter.commit_if_has_connection()
        warm.forget()

    warm._inside(look)


def test_closing_empties_what_the_process_shares(warm: Warm) -> None:
    warm.run("model.shop.orders")
    warm.close()
    adapter = warm._dbt._adapter
    assert type(adapter.connections)._ENV is None
    assert adapter.connections.thread_connections == {}
    assert not adapter.cache.relations
    assert not adapter.cache.schemas


def test_a_connection_and_with_it_its_temporary_tables_ends_with_each_node(warm: Warm) -> None:
    """What sweeps a temporary table after a failed build."""
    warm.run("model.shop.untidy", variables={"t2_start": "2024-01-02", "t2_end": "2024-01-03"})
    assert warm.query("select count(*) as n from duckdb_tables() where temporary") == [{"n": 0}]
    assert {
        connection.state for connection in warm._dbt._adapter.connections.thread_connections.values()
    } == {"closed"}


def test_installing_is_what_the_globals_hold(warm: Warm) -> None:
    warm.query("select 1")
    assert FACTORY.adapters["duckdb"] is warm._dbt._adapter
    assert warm._dbt._on_event in get_event_manager().callbacks
    assert get_event_manager().loggers == []


def test_dbts_own_locks_in_shared_memory_are_replaced(dbt: Dbt) -> None:
    """A semaphore that is inherited stays taken for all if a child is killed while it holds it."""
    for lock in (dbt._adapter.connections.lock, dbt.manifest._lock):
        assert type(lock).__module__ in ("_thread", "threading")


def test_an_error_of_a_batch_keeps_the_databases_message(warm: Warm) -> None:
    """dbt's own runner answers ERROR."""
    from datetime import datetime, timezone

    batch = (datetime(2024, 1, 2, tzinfo=timezone.utc), datetime(2024, 1, 3, tzinfo=timezone.utc))
    result = warm.run("model.shop.micro", batch=batch)
    assert result.status == "error"
    assert "orders does not exist" in result.message


def test_macros_are_compiled_once_for_all(warm: Warm) -> None:
    from dbt_common.clients.jinja import template_cache

    template_cache.clear()
    warm.prepare()
    compiled = len(template_cache.file_cache)
    assert warm.run("model.shop.orders").status == "success"
    assert len(template_cache.file_cache) == compiled


def test_events_for_debugging_are_messages_when_somebody_looks(warm: Warm) -> None:
    from dbt.adapters.events.types import SQLQuery
    from dbt_common.events.base_types import msg_from_base_event

    event = SQLQuery(conn_name="c", sql="select 1", node_info={"node_name": "n"})
    assert "pb_msg" not in vars(event)
    assert event.message() == "On c: select 1"
    assert event.sql == "select 1"
    event.conn_name = "d"
    assert msg_from_base_event(event).data.conn_name == "d"


def test_only_what_a_listener_wants_is_fired(warm: Warm) -> None:
    from dbt.events.types import JinjaLogDebug, JinjaLogInfo, JinjaLogWarning
    from dbt_common.events.base_types import EventLevel
    from dbt_common.events.event_manager import EventManager

    from t2.runtime._dbt.events import fire_loud_events_only

    manager, heard = EventManager(), []
    manager.add_callback(heard.append)
    fire_loud_events_only(manager, heard.append)
    manager.fire_event(JinjaLogDebug(msg="debug"))
    manager.fire_event(JinjaLogInfo(msg="info"))
    manager.fire_event(JinjaLogInfo(msg="quiet info"), level=EventLevel.DEBUG)
    manager.fire_event(JinjaLogWarning(msg="warning"))
    assert [event.info.msg for event in heard] == ["info", "warning"]
    others: list[object] = []
    manager.callbacks = [others.append]  # somebody else's, who may want everything
    manager.fire_event(JinjaLogDebug(msg="debug"))
    assert len(others) == 1


def test_arguments_of_tests_without_jinja_are_left_as_they_are() -> None:
    """What `_is_plain` spares dbt: a template for each of them."""
    from dbt.clients.jinja import get_rendered

    from t2.runtime._dbt.session import _is_plain

    for text in ("alpha", "1", "1.0", "True", "None", "it''s", "[1, 2]", "", " a ", "id > 0 # so", "100%"):
        assert _is_plain(text) != any(sign in text for sign in "{}()")
        assert get_rendered(text, {}, None, native=True) == text
    for argument in ("{{ 1 }}", "ref('x')", ["a", "{{ 1 }}"], {"a": "b"}):
        assert not _is_plain(argument)


def test_dispatched_macros_are_dependencies_of_those_that_call_them(dbt: Dbt) -> None:
    """By them `_is_original` sees that somebody replaced one."""
    macros = dbt.manifest.macros
    assert macros["macro.dbt.test_unique"].depends_on.macros == ["macro.dbt.default__test_unique"]
    assert "macro.dbt.get_test_sql" in macros["macro.dbt.materialization_test_default"].depends_on.macros
    assert macros["macro.dbt.get_test_sql"].depends_on.macros == ["macro.dbt.default__get_test_sql"]


def test_rendering_a_test_leaves_the_manifest_as_it_was(warm: Warm) -> None:
    macros = {uid: list(macro.depends_on.macros) for uid, macro in warm._dbt.manifest.macros.items()}
    for test in warm.project.tables["main/orders"].tests:
        warm.test_sql(test.unique_id, "model.shop.orders", rows="rows")
    assert {uid: list(macro.depends_on.macros) for uid, macro in warm._dbt.manifest.macros.items()} == macros


def test_dbt_duckdb_makes_its_environment_by_one_function_and_asks_no_more_of_it() -> None:
    """What `ServerEnvironment` and `ServerSession` stand in for."""
    from dbt.adapters.duckdb import connections, environments
    from dbt.adapters.duckdb.environments.local import DuckDBConnectionWrapper

    assert "environments.create(credentials)" in inspect.getsource(connections.DuckDBConnectionManager.open)
    assert environments.Environment.__abstractmethods__ == {
        "handle", "submit_python_job", "load_source", "store_relation", "is_cancelable", "cancel"
    }  # fmt: skip
    methods = {name for name, value in vars(DuckDBConnectionWrapper).items() if inspect.isfunction(value)}
    assert methods == {"__init__", "close", "cursor", "rollback"}


def test_duckdb_names_the_process_that_has_a_file_open(tmp_path: Path) -> None:
    file = str(tmp_path / "some.duckdb")
    with duckdb.connect(file):
        command = [sys.executable, "-c", f"import duckdb; duckdb.connect({file!r})"]
        told = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    assert is_locked_out(told)
    assert name_holder(told).endswith(f"(pid {os.getpid()})")


def test_what_dbt_fetches_is_what_a_cursor_gives(dbt: Dbt, warm: Warm) -> None:
    """`query` uses it where dbt has no cursors: BigQuery."""
    sql = "select 1 as N, 'a' as s, 0 as zero union all select 2, null, 0"

    def fetch() -> Any:
        with dbt._adapter.connection_named("here"):
            return dbt._fetch(sql)

    assert warm._inside(fetch) == warm.query(sql)


def test_a_relation_is_rendered_as_the_manifest_names_it(dbt: Dbt) -> None:
    nodes = [*dbt.manifest.nodes.values(), *dbt.manifest.sources.values()]
    tables = [node for node in nodes if str(node.resource_type) != "test" and node.relation_name]
    assert len(tables) > 10
    assert [str(dbt._relation(node)) for node in tables] == [node.relation_name for node in tables]


def test_the_cache_of_relations_tells_what_it_does_by_events_alone(warm: Warm) -> None:
    """Which `_adapter` silences: they are of the level debug."""
    from dbt.adapters import cache
    from dbt.adapters.events.types import CacheAction

    assert "fire_event(" in inspect.getsource(cache.RelationsCache.add)
    assert cache.fire_event.__module__ == "t2.runtime._dbt.loading"
    assert CacheAction().level_tag() == "debug"
