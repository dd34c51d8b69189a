"""dbt's published tests of adapters, in projects that have T2's package installed.

`make test` runs `test_representative.py`, `make test-adapters` all of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa
from dbt.tests.fixtures.project import *  # noqa: F403  (the suite's fixtures)
from dbt_common.tests import disable_test_caching

from t2.runtime.parsing import install_package

Target = dict[str, Any]

USERS = ("dbt_reader", "dbt_writer", "dbt_other")


@pytest.fixture(scope="class")
def project_root(tmpdir_factory: Any, dbt_profile_target: Target) -> Any:
    """A class that runs on both warehouses has a project for each: tests write into it."""
    return tmpdir_factory.mktemp("project")


@pytest.fixture(scope="class", autouse=True)
def t2_package(project_root: Any, dbt_project_yml: Any) -> Iterator[None]:
    """Every project of the suite has T2's package."""
    install_package(Path(project_root))
    yield
    disable_test_caching()


@pytest.fixture(scope="class")
def logs_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The suite's own writes into the repository."""
    folder = str(tmp_path_factory.mktemp("logs"))
    os.environ["DBT_LOG_PATH"] = folder
    yield folder
    del os.environ["DBT_LOG_PATH"]


@pytest.fixture(scope="class")
def duckdb_target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    return {"type": "duckdb", "threads": 4, "path": str(tmp_path_factory.mktemp("duck") / "test.duckdb")}


@pytest.fixture(scope="session")
def postgres_database(postgres_server: str) -> Target:
    """The database `dbt` and the user `root` that the tests of hooks expect, and users to grant to."""
    url = sa.make_url(postgres_server).set(drivername="postgresql")
    connection = psycopg2.connect(url.render_as_string(hide_password=False))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("create role root superuser login")
        for user in USERS:
            cursor.execute(f"create role {user}")
        cursor.execute("create database dbt owner root")
    connection.close()
    return {
        "type": "postgres",
        "threads": 4,
        "host": url.host or url.query["host"],
        "port": url.port or 5432,
        "user": "root",
        "pass": "",
        "dbname": "dbt",
    }


@pytest.fixture(scope="class")
def postgres_target(postgres_database: Target) -> Iterator[Target]:
    for number, user in enumerate(USERS, 1):
        os.environ[f"DBT_TEST_USER_{number}"] = user
    yield dict(postgres_database)
    for number in range(1, len(USERS) + 1):
        del os.environ[f"DBT_TEST_USER_{number}"]
