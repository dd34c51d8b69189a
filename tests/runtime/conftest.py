from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
import sqlalchemy as sa
from tests.postgres import postgres_server
from tests.runtime.projects import MICROBATCH, RAW, write

import t2
from t2.project.model import Project
from t2.runtime import warehouse
from t2.runtime.warm import Warm

__all__ = ["postgres_server"]


@pytest.fixture(scope="session")
def duckdb_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("duck")
    profile = "{type: duckdb, path: shop.duckdb, schema: main, threads: 2}"
    return t2.load_project(write(root, profile, MICROBATCH))


@pytest.fixture
def project(duckdb_project: Project) -> Project:
    """The project with an empty warehouse but for the raw tables."""
    import duckdb

    file = Path(duckdb_project.root) / "shop.duckdb"
    file.unlink(missing_ok=True)
    with duckdb.connect(str(file)) as connection:
        for statement in RAW:
            connection.execute(statement)
    return duckdb_project


@pytest.fixture
def warm(project: Project) -> Iterator[Warm]:
    found = Warm.of(project)
    with warehouse.session(found):
        yield found


@pytest.fixture(scope="session")
def postgres_shop(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    url = sa.make_url(postgres_server).set(drivername="postgresql")
    connection = psycopg2.connect(url.render_as_string(hide_password=False))
    connection.autocommit = True
    connection.cursor().execute("create database shop")
    connection.close()
    host = url.host or url.query["host"]
    profile = (
        f"{{type: postgres, host: '{host}', port: {url.port or 5432}, user: {url.username}, password: x,"
        " dbname: shop, schema: public, threads: 2}"
    )
    project = t2.load_project(write(tmp_path_factory.mktemp("post"), profile))
    return project, url.set(database="shop").render_as_string(hide_password=False)


@pytest.fixture
def postgres_warm(postgres_shop: tuple[Project, str]) -> Iterator[Warm]:
    project, url = postgres_shop
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("drop schema if exists raw cascade; drop schema public cascade; create schema public")
        for statement in RAW:
            cursor.execute(statement)
    connection.close()
    found = Warm.of(project)
    with warehouse.session(found):
        yield found
