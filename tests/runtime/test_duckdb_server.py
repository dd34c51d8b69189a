"""One process that owns the DuckDB file and executes for all others."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Client
from pathlib import Path
from textwrap import dedent
from typing import Any

import duckdb
import pytest
from tests.runtime.projects import NOW, days
from tests.runtime.servers import RunningServer, running_server

import t2
from t2.errors import DbtError
from t2.project.model import Project
from t2.runtime import warehouse
from t2.runtime._dbt.duckdb import ServerEnvironment
from t2.runtime.build import Checked, build
from t2.runtime.duckdb_client import ServerSession, WarehouseLostError, find_server, locked
from t2.runtime.monitors import look
from t2.runtime.turns import Turn
from t2.runtime.warm import Warm

FORK = multiprocessing.get_context("fork")
# Takes minutes, and neither memory nor disk.
ENDLESS = "select count(*) from range(1000000000000) as a"

Open = Callable[[], ServerSession]


@pytest.fixture(scope="module")
def kept(duckdb_project: Project) -> Iterator[RunningServer]:
    with running_server(Path(duckdb_project.root)) as server:
        yield server


@pytest.fixture
def server(kept: RunningServer, project: Project) -> RunningServer:
    """The server, and an empty warehouse."""
    if kept.process.poll() is not None:
        kept.start()
    return kept


@pytest.fixture
def served(server: RunningServer, project: Project) -> Iterator[Warm]:
    found = Warm.of(project)
    with warehouse.session(found):
        yield found


@pytest.fixture
def new(served: Warm) -> Iterator[Open]:
    """Opens sessions as dbt does."""
    opened: list[ServerSession] = []

    def make() -> ServerSession:
        opened.append(_session(served))
        return opened[-1]

    yield make
    for session in opened:
        session.close()


def _session(warm: Warm, **changes: Any) -> ServerSession:
    credentials = warm._dbt.config.credentials
    if changes:
        credentials = credentials.replace(**changes)
    return ServerEnvironment(credentials, Path(warm.project.root)).handle()


def file_of(warm: Warm) -> Path:
    assert warm.file
    return warm.file


def until(condition: Callable[[], Any], seconds: float = 10) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def test_a_server_without_clients_has_imported_neither_dbt_nor_duckdb() -> None:
    """It also runs beside a warehouse that is not DuckDB, which may not be installed then."""
    code = "import sys, t2.runtime.duckdb_server; assert not {'dbt', 'duckdb'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_session_opens_no_file_of_its_own(served: Warm) -> None:
    assert served.query("select sum(amount) as total from raw.orders") == [{"total": 18}]
    command = [sys.executable, "-c", f"import duckdb; duckdb.connect({str(file_of(served))!r})"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    server = find_server(Path(served.project.root))
    assert server
    assert f"PID {server.pid}" in refused.stderr


def test_rows_come_as_duckdb_gives_them(new: Open) -> None:
    sql = """
        select 1.50::decimal(9, 2) as a, timestamptz '2024-01-01 00:00+00' as b, uuid() is null as c,
          [1, 2] as d, {'x': 1} as e, interval 1 day as f, 'text' as g, null as h,
          'nan'::double as i, '\\x00'::blob as j
        """
    ours, theirs = new().execute(sql), duckdb.execute(sql)
    assert [column[:2] for column in ours.description or ()] == [
        (name, str(kind)) for name, kind, *_ in theirs.description or ()
    ]
    assert repr(ours.fetchall()) == repr(theirs.fetchall())


def test_rows_are_fetched_in_any_pieces(new: Open) -> None:
    session = new().execute("select * from range(1000)")
    pieces = [session.fetchone(), *session.fetchmany(400), *session.fetchmany(2), *session.fetchall()]
    assert pieces == [(number,) for number in range(1000)]
    assert (session.fetchone(), session.fetchmany(2), session.fetchall()) == (None, [], [])


def test_an_error_is_duckdbs_own(new: Open, served: Warm) -> None:
    with pytest.raises(duckdb.CatalogException, match="no_such_table does not exist") as raised:
        new().execute("select * from no_such_table")
    with pytest.raises(DbtError) as wrapped:
        served.query("select * from no_such_table")
    assert str(raised.value).splitlines()[0] in str(wrapped.value)


def test_transactions_and_temporary_tables_are_a_sessions_own(new: Open) -> None:
    one, other = new(), new()
    one.execute("create temporary table mine as select 1 as id")
    one.execute("begin")
    one.execute("insert into raw.rates values ('GBP', 3)")
    assert other.execute("select count(*) from raw.rates").fetchone() == (2,)
    with pytest.raises(duckdb.CatalogException):
        other.execute("select * from mine")
    one.rollback()
    assert one.execute("select count(*) from raw.rates").fetchone() == (2,)
    assert one.execute("select * from mine").fetchone() == (1,)


def test_bindings_are_passed(new: Open) -> None:
    assert new().execute("select ? + ?", [1, 2]).fetchall() == [(3,)]


def test_without_the_key_nothing_is_answered(served: Warm) -> None:
    record = find_server(Path(served.project.root))
    assert record
    assert (Path(served.project.root) / ".t2/warehouse.json").stat().st_mode & 0o077 == 0
    with Client(record.socket, family="AF_UNIX") as stranger:
        stranger.send_bytes(b"0" * len(record.key))
        with pytest.raises(EOFError):
            stranger.recv()


def test_building_and_testing_through_the_server_is_what_it_is_without(served: Warm) -> None:
    tests = served.project.tables["main/orders"].tests
    through = _shape(build(served, served.project.tables["main/orders"], days(1, 6), tests=tests, now=NOW))
    rows = served.query("select * from orders order by all")
    served.query("drop table orders; select 1")
    served.close()
    served.serve(None)
    turn = Turn(file_of(served))
    turn.take()
    try:
        here = _shape(build(served, served.project.tables["main/orders"], days(1, 6), tests=tests, now=NOW))
        assert (here, served.query("select * from orders order by all")) == (through, rows)
    finally:
        served.close()
        turn.give_up()
        served.serve(Path(served.project.root))


def _shape(events: Any) -> list[tuple[Any, ...]]:
    return [
        (event.keys, event.result.status, event.result.rows_affected, isinstance(event, Checked))
        for event in events
    ]


def test_monitors_look_through_the_server(served: Warm) -> None:
    assert list(look(served, served.project.sources["raw/orders"], now=NOW)) == days(1, 5)


# --- Clients that end -----------------------------------------------------------------------------


def _half_done(warm: Warm, ready: Any, sql: str) -> None:
    """What a killed process was doing: a lock is held, a transaction open, a statement under way."""
    session = _session(warm)
    with locked(Path(warm.project.root), ["orders 2024-01-01"]):
        session.execute("create temporary table left_over as select 1")
        session.execute("begin")
        session.execute("insert into raw.rates values ('GBP', 3)")
        ready.set()
        session.execute(sql)
        time.sleep(60)


@pytest.mark.parametrize("sql", [ENDLESS, "select 1"], ids=["in a statement", "between statements"])
def test_what_a_killed_client_leaves_is_rolled_back_and_freed(served: Warm, new: Open, sql: str) -> None:
    ready = FORK.Event()
    child = FORK.Process(target=_half_done, args=(served, ready, sql))
    child.start()
    assert ready.wait(10)
    assert child.pid
    time.sleep(0.1)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    started = time.monotonic()
    with locked(Path(served.project.root), ["orders 2024-01-01"]):
        pass
    session = new()
    assert session.execute("select count(*) from raw.rates").fetchone() == (2,)
    assert session.execute("select count(*) from duckdb_tables() where temporary").fetchone() == (0,)
    # The endless statement is over, too: no session but ours is left.
    session.close()
    turn = Turn(file_of(served))
    turn.take()
    turn.give_up()
    assert time.monotonic() - started < 2


def test_an_interrupted_thread_stops_its_statement_at_once(served: Warm) -> None:
    """What Dagster's termination does to a step; in DuckDB itself nothing would notice."""
    ended: list[BaseException] = []

    def work() -> None:
        try:
            served.query(ENDLESS)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.3)
    assert thread.ident
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
    thread.join(2)
    assert [type(error) for error in ended] == [SystemExit]
    turn = Turn(file_of(served))
    turn.take()  # nothing runs any more
    turn.give_up()


def test_another_thread_can_interrupt_a_statement(new: Open) -> None:
    """What dbt does when it cancels open connections."""
    session = new()
    timer = threading.Timer(0.3, session.interrupt)
    timer.start()
    with pytest.raises(RuntimeError, match="the statement was interrupted"):
        session.execute(ENDLESS)


# --- A server that ends ---------------------------------------------------------------------------


def test_a_killed_server_fails_what_was_under_way_and_the_next_one_has_what_was_committed(
    server: RunningServer, served: Warm, new: Open
) -> None:
    session = new()
    session.execute("insert into raw.rates values ('GBP', 3)")
    session.execute("begin")
    session.execute("insert into raw.rates values ('CHF', 4)")
    server.kill()
    with pytest.raises(WarehouseLostError):
        session.execute("commit")
    threading.Timer(0.5, server.start).start()
    assert served.query("select string_agg(currency, ' ' order by currency) as all_ from raw.rates") == [
        {"all_": "EUR GBP USD"}
    ]


def test_a_build_goes_on_with_the_next_server(server: RunningServer, served: Warm, new: Open) -> None:
    """The server is killed in the middle of a build, whenever that is."""
    table = served.project.tables["main/orders"]
    for wait in (0.0, 0.01, 0.03):
        threading.Timer(wait, lambda: (server.kill(), server.start())).start()
        (built,) = build(served, table, days(1, 2), tests=(), now=NOW)
        assert built.result.status == "success"
    assert served.query("select count(*) as n, count(distinct id) as ids from orders") == [{"n": 4, "ids": 4}]


def test_a_test_goes_on_with_the_next_server(server: RunningServer, served: Warm) -> None:
    list(build(served, served.project.tables["main/orders"], days(1, 2), tests=(), now=NOW))
    (test,) = (t for t in served.project.tables["main/orders"].tests if t.kind == "not_null")
    server.kill()
    threading.Timer(0.5, server.start).start()
    assert served.run(test.unique_id).status == "pass"


def test_a_lock_that_was_lost_with_its_server_fails_the_next_statement(
    server: RunningServer, served: Warm
) -> None:
    with locked(Path(served.project.root), ["orders 2024-01-01"]):
        server.kill()
        server.start()
        with pytest.raises(WarehouseLostError, match="the lock on this partition"):
            _session(served).execute("select 1")
    assert _session(served).execute("select 1").fetchone() == (1,)


def test_without_a_family_a_lost_server_is_not_waited_for(
    duckdb_project: Project, tmp_path: Path, served: Warm
) -> None:
    with pytest.raises(WarehouseLostError, match="`t2 dev` has ended"):
        ServerSession(tmp_path, b"").execute("select 1")


def test_a_server_that_is_asked_to_end_stops_what_runs_and_closes_the_file(
    server: RunningServer, served: Warm, new: Open
) -> None:
    session = new()
    errors: list[Exception] = []

    def work() -> None:
        try:
            session.execute(ENDLESS)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.3)
    started = time.monotonic()
    assert server.stop() == 0
    thread.join()
    assert time.monotonic() - started < 3
    assert [type(error) for error in errors] == [WarehouseLostError]
    assert not file_of(served).with_name("shop.duckdb.wal").exists()
    duckdb.connect(str(file_of(served))).close()


# --- The file, and others who want it -------------------------------------------------------------


def test_an_outside_program_gets_its_turn_between_two_sessions(served: Warm, new: Open) -> None:
    busy = new()
    busy.execute("create temporary table mine as select 1")
    turn, got = Turn(file_of(served)), threading.Event()

    def load() -> None:
        turn.take()
        got.set()
        with duckdb.connect(str(file_of(served))) as connection:
            connection.execute("insert into raw.rates values ('GBP', 3)")
        turn.give_up()

    thread = threading.Thread(target=load)
    thread.start()
    assert not got.wait(0.3)
    assert busy.execute("select count(*) from mine").fetchone() == (1,)  # a session is not cut off
    busy.close()
    assert got.wait(2)
    assert served.query("select count(*) as n from raw.rates") == [{"n": 3}]
    thread.join()


def test_a_session_that_another_one_may_be_waiting_for_begins_before_an_outside_programs_turn(
    served: Warm, new: Open
) -> None:
    # Regression: dbt-duckdb holds a lock of its process while its second thread's session begins.
    idle = new()
    idle.execute("select 1")
    turn = Turn(file_of(served))
    thread = threading.Thread(target=turn.take)
    thread.start()
    until(Turn(file_of(served)).is_wanted)
    wanted = new()
    assert wanted.execute("select 2").fetchone() == (2,)
    assert not turn.held
    idle.close()
    wanted.close()
    thread.join(5)
    assert turn.held
    turn.give_up()


def test_who_keeps_the_file_open_is_named_and_waited_for(
    server: RunningServer, served: Warm, new: Open
) -> None:
    turn = Turn(file_of(served))
    turn.take()
    code = f"import duckdb, time; c = duckdb.connect({str(file_of(served))!r}); print(flush=True)"
    code += "; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as notebook:
        assert notebook.stdout
        notebook.stdout.readline()
        turn.give_up()
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(served.query("select 1 as one")))
        thread.start()
        until(lambda: f"(pid {notebook.pid}): what needs it waits" in server.text())
        assert "t2 warehouse: shop.duckdb is kept open by python" in server.text()
        assert not answers
        notebook.kill()
    thread.join(5)
    assert answers == [[{"one": 1}]]
    assert "shop.duckdb is free again" in server.text()


def test_a_file_that_was_replaced_is_opened_anew(served: Warm) -> None:
    assert served.query("select count(*) as n from raw.rates") == [{"n": 2}]
    file_of(served).unlink()
    with duckdb.connect(str(file_of(served))) as connection:
        connection.execute("create schema raw; create table raw.rates as select 1 as only")
    assert served.query("select * from raw.rates") == [{"only": 1}]


def test_other_settings_of_the_profile_open_the_file_anew(served: Warm) -> None:
    session = _session(served, config_options={"default_null_order": "nulls_first"})
    assert session.execute("select current_setting('default_null_order')").fetchone() == ("NULLS_FIRST",)
    session.close()
    assert served.query("select current_setting('default_null_order') as o") == [{"o": "NULLS_LAST"}]


def test_what_duckdb_says_of_a_file_that_cannot_be_opened_is_the_clients(
    served: Warm, tmp_path: Path
) -> None:
    (tmp_path / "not.duckdb").write_text("this is no database, whatever its name says" * 100)
    with pytest.raises(duckdb.IOException, match="not a valid DuckDB database file"):
        _session(served, path=str(tmp_path / "not.duckdb")).execute("select 1")


# --- Named locks ----------------------------------------------------------------------------------


def test_a_name_is_held_by_one_client_at_a_time_and_several_are_taken_together(served: Warm) -> None:
    root, order = Path(served.project.root), list[str]()

    def work() -> None:
        with locked(root, ["b", "c"]):
            order.append("second")

    with locked(root, ["a", "b"]):
        thread = threading.Thread(target=work)
        thread.start()
        with locked(root, ["c"]):  # the waiting one holds nothing
            order.append("first")
    thread.join()
    assert order == ["first", "second"]


# --- What dbt-duckdb can do besides SQL -----------------------------------------------------------

PLUGIN = """
import numpy as np
from dbt.adapters.duckdb.plugins import BasePlugin

class Plugin(BasePlugin):
    def configure_connection(self, connection):
        connection.create_function("twice", lambda x: 2 * x, ["BIGINT"], "BIGINT")

    def load(self, source_config):
        return {"number": np.array([1, 2, source_config["last"]])}

    def store(self, target_config):
        with open(target_config.config["note"], "w") as note:
            note.write(f"{target_config.relation.identifier} {[c.column for c in target_config.column_list]}")
"""
SPECIAL = {
    "dbt_project.yml": "name: special\nprofile: special\nflags: {send_anonymous_usage_stats: false}\n",
    "profiles.yml": """
        special:
          target: dev
          outputs:
            dev:
              type: duckdb
              path: special.duckdb
              threads: 2
              external_root: out
              settings: {default_collation: nocase}
              attach: [{path: other.duckdb, alias: other}]
              module_paths: [plugins]
              plugins: [{module: special_plugin}]
        """,
    "plugins/special_plugin.py": PLUGIN,
    "models/models.yml": """
        sources:
          - name: loaded
            meta: {plugin: special_plugin, last: 7}
            tables: [{name: numbers}]
        """,
    "models/doubled.sql": "select twice(number) as number from {{ source('loaded', 'numbers') }}",
    "models/in_python.py": """
        def model(dbt, session):
            dbt.config(materialized="table")
            return session.sql("select sum(number) as total from doubled")
        """,
    "models/outside.sql": """
        {{ config(materialized='external', plugin='special_plugin', note='note.txt') }}
        select * from {{ ref('doubled') }}
        """,
    "models/elsewhere.sql": "{{ config(materialized='table', database='other') }} select 'A' = 'a' as same",
    "seeds/slow.csv": "code,n\nDE,1\nFR,2\n",
    "seeds/slow.yml": "seeds: [{name: slow, config: {fast: false}}]\n",
}


def test_python_models_plugins_functions_settings_and_attached_databases_work(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name, text in SPECIAL.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(dedent(text).lstrip("\n"))
    project = t2.load_project(tmp_path)
    with running_server(tmp_path):
        warm = Warm.of(project)
        with warehouse.session(warm):
            nodes = ["model.special.doubled", "model.special.in_python", "model.special.outside"]
            nodes += ["model.special.elsewhere", "seed.special.slow"]
            results = [warm.run(node) for node in nodes]
            assert [(r.status, r.message) for r in results if not r.ok] == []
            assert warm.query("select total from in_python") == [{"total": 20}]
            assert warm.query("select number from 'out/outside.parquet' order by 1") == [
                {"number": 2}, {"number": 4}, {"number": 14}
            ]  # fmt: skip
            assert warm.query("select same from other.main.elsewhere") == [{"same": True}]
            assert warm.query("select count(*) as n from slow") == [{"n": 2}]
    assert (tmp_path / "note.txt").read_text() == "outside ['number']"
