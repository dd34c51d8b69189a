"""SQLite connections that wait for their next use."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from t2.definitions import quick_sqlite


@pytest.fixture(autouse=True)
def kept() -> Iterator[None]:
    quick_sqlite.keep_connections()
    yield
    quick_sqlite.close()


def engine(path: Path) -> sa.Engine:
    return sa.create_engine(f"sqlite:///{path}", poolclass=NullPool)


def raw(connection: sa.Connection) -> object:
    return connection.connection.driver_connection


def test_a_closed_connection_is_the_next_one_of_its_engine(tmp_path: Path) -> None:
    one, other = engine(tmp_path / "a.db"), engine(tmp_path / "a.db")
    with one.connect() as connection:
        first = raw(connection)
        with one.connect() as beside:
            assert raw(beside) is not first
    with one.connect() as connection, other.connect() as foreign:
        assert raw(connection) is first
        assert raw(foreign) is not first  # an engine may set its connections up in its own way


def test_what_was_not_committed_is_rolled_back(tmp_path: Path) -> None:
    one = engine(tmp_path / "a.db")
    with one.begin() as connection:
        connection.exec_driver_sql("create table t (x integer)")
    connection = one.connect()
    connection.exec_driver_sql("insert into t values (1)")
    raw(connection).close()  # type: ignore[attr-defined]
    with one.connect() as following:
        assert following.exec_driver_sql("select count(*) from t").scalar() == 0
    connection.close()


def test_a_connection_that_is_closed_twice_has_one_user(tmp_path: Path) -> None:
    one = engine(tmp_path / "a.db")
    with one.connect() as connection:
        closed = raw(connection)
    closed.close()  # type: ignore[attr-defined]
    with one.connect() as connection, one.connect() as beside:
        assert raw(connection) is closed
        assert raw(beside) is not closed


def test_connections_of_few_files_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick_sqlite, "FILES", 2)
    engines = [engine(tmp_path / f"{number}.db") for number in range(3)]
    raws = []
    for one in engines:
        with one.connect() as connection:
            raws.append(raw(connection))
    with pytest.raises(sqlite3.ProgrammingError):
        raws[0].execute("select 1")  # type: ignore[attr-defined]
    with engines[1].connect() as connection:
        assert raw(connection) is raws[1]


def test_afterwards_connections_close_and_the_log_is_written_back(tmp_path: Path) -> None:
    one = engine(tmp_path / "a.db")
    with one.begin() as connection:
        connection.exec_driver_sql("pragma journal_mode=wal")
    with one.begin() as connection:
        connection.exec_driver_sql("create table t (x integer)")
    assert (tmp_path / "a.db-wal").exists()
    quick_sqlite.close()
    assert not (tmp_path / "a.db-wal").exists()
    with one.connect() as connection:
        assert type(raw(connection)) is sqlite3.Connection
    quick_sqlite.keep_connections()
