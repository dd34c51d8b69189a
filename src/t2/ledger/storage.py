"""Where Dagster keeps its event log, read from `dagster.yaml` without importing Dagster."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import sqlalchemy as sa
import yaml
from sqlalchemy.engine import URL, Connection, Engine, make_url

from t2.errors import StorageError

SUPPORTED = "T2 reads SQLite (Dagster's default, or `storage: sqlite`) and `storage: postgres`"
# As long as Dagster itself waits for another writer of its SQLite files.
SQLITE_BUSY_SECONDS = 30


def locate(dagster_home: Path) -> URL:
    """Return the URL of the database that holds the event log of a Dagster instance.

    With SQLite that is `history/runs/index.db`, where Dagster mirrors the events of all runs that
    concern assets, checks and run status. Raises StorageError if the storage is none that T2 can read.
    """
    file = dagster_home / "dagster.yaml"
    config = (yaml.safe_load(file.read_text()) if file.exists() else None) or {}
    where = str(file)
    if "event_log_storage" in config:
        raise StorageError("`event_log_storage` is set separately", hint=SUPPORTED, where=where)
    storage = config.get("storage") or {"sqlite": {"base_dir": str(dagster_home)}}
    if set(storage) == {"sqlite"}:
        base = Path(_value(storage["sqlite"]["base_dir"], where)).absolute()
        return URL.create("sqlite", database=str(base / "history" / "runs" / "index.db"))
    if set(storage) == {"postgres"}:
        return _postgres(storage["postgres"], where)
    raise StorageError(
        f"the storage {', '.join(sorted(storage))!r} is not supported", hint=SUPPORTED, where=where
    )


def open_engine(url: URL) -> Engine:
    """Open the database; raises StorageError if Dagster has not made its event log there yet.

    With SQLite, a transaction with the execution option `immediate` takes the write lock when it
    begins, so that what it read cannot change before it writes.
    """
    if url.get_backend_name() == "postgresql":
        # Named: SQLAlchemy 2.1 takes psycopg 3 by default, which dagster-postgres does not bring.
        named = url.set(drivername="postgresql+psycopg2")
        return sa.create_engine(named, executemany_mode="values_plus_batch", pool_pre_ping=True, pool_size=2)
    # Dagster prepares the file only if it does not exist: T2 must never be the one that creates it.
    if not Path(url.database or "").exists():
        raise StorageError(
            "there is no Dagster event log yet", hint="start t2 dev once", where=str(url.database)
        )
    engine = sa.create_engine(url, connect_args={"timeout": SQLITE_BUSY_SECONDS})
    sa.event.listen(engine, "connect", _manual_transactions)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _manual_transactions(connection: Any, _record: object) -> None:
    # Python's sqlite3 begins transactions late and of its own accord; T2 says when.
    connection.isolation_level = None


def _begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _postgres(config: Mapping[str, Any], where: str) -> URL:
    if "auth_provider" in config:
        raise StorageError("`auth_provider` is not supported", hint=SUPPORTED, where=where)
    if "postgres_url" in config:
        text = _value(config["postgres_url"], where)
    else:
        text = _postgres_text({key: _value(value, where) for key, value in config["postgres_db"].items()})
    return make_url(text.replace("postgres://", "postgresql://", 1))


def _postgres_text(parts: Mapping[str, Any]) -> str:
    """Spell the URL as dagster_postgres.utils.get_conn_string does."""
    user = quote(parts["username"], safe="")
    if parts.get("password"):
        user += ":" + quote(parts["password"], safe="")
    query = "?" + urlencode(parts["params"], quote_via=quote) if parts.get("params") else ""
    return f"postgresql://{user}@{parts['hostname']}:{parts.get('port', 5432)}/{parts['db_name']}{query}"


def _value(value: Any, where: str) -> Any:
    """Return a configured value, from the environment if it says `{env: VARIABLE}`."""
    if not (isinstance(value, Mapping) and set(value) == {"env"}):
        return value
    if value["env"] not in os.environ:
        raise StorageError(f"the environment variable {value['env']} is not set", where=where)
    return os.environ[value["env"]]
