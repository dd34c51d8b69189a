from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
import sqlalchemy as sa
from tests.dbt_package.bigquery_project import MODELS, SOURCES
from tests.dbt_package.bigquery_server import PROJECT, BigQuery
from tests.dbt_package.projects import RAW, write
from tests.postgres import postgres_server

import t2
from t2.project.model import Project
from t2.runtime import warehouse
from t2.runtime.warm import Warm

__all__ = ["postgres_server"]


@pytest.fixture(scope="session")
def duckdb_site(tmp_path_factory: pytest.TempPathFactory) -> Project:
    profile = "{type: duckdb, path: site.duckdb, schema: main, threads: 8}"
    return t2.load_project(write(tmp_path_factory.mktemp("duck"), profile))


@pytest.fixture
def duckdb_project(duckdb_site: Project) -> Project:
    """The project with an empty warehouse but for the raw tables."""
    import duckdb

    file = Path(duckdb_site.root) / "site.duckdb"
    file.unlink(missing_ok=True)
    with duckdb.connect(str(file)) as connection:
        for statement in RAW:
            connection.execute(statement)
    return duckdb_site


@pytest.fixture(scope="session")
def postgres_site(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """The project, and the URL of its database as psycopg2 takes it."""
    url = sa.make_url(postgres_server).set(drivername="postgresql")
    connection = psycopg2.connect(url.render_as_string(hide_password=False))
    connection.autocommit = True
    connection.cursor().execute("create database site")
    connection.cursor().execute("create role reader")
    connection.close()
    host = url.host or url.query["host"]
    profile = (
        f"{{type: postgres, host: '{host}', port: {url.port or 5432}, user: {url.username}, password: x,"
        " dbname: site, schema: public, threads: 8}"
    )
    project = t2.load_project(write(tmp_path_factory.mktemp("post"), profile))
    return project, url.set(database="site").render_as_string(hide_password=False)


@pytest.fixture
def postgres_project(postgres_site: tuple[Project, str]) -> Project:
    """The project with an empty warehouse but for the raw tables."""
    project, url = postgres_site
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "drop schema if exists raw cascade; drop schema if exists public_other cascade;"
            " drop schema public cascade; create schema public"
        )
        for statement in RAW:
            cursor.execute(statement)
    connection.close()
    return project


@pytest.fixture(scope="session")
def bigquery() -> Iterator[BigQuery]:
    server = BigQuery()
    yield server
    server.close()


@pytest.fixture(scope="session")
def bigquery_site(bigquery: BigQuery, tmp_path_factory: pytest.TempPathFactory) -> Project:
    profile = (
        f"{{type: bigquery, method: oauth-secrets, token: x, project: {PROJECT}, dataset: main, threads: 8,"
        f" api_endpoint: '{bigquery.url}'}}"
    )
    return t2.load_project(write(tmp_path_factory.mktemp("big"), profile, MODELS))


@pytest.fixture
def bigquery_project(bigquery: BigQuery, bigquery_site: Project) -> Project:
    """The project with an empty stand-in but for the raw tables."""
    bigquery.reset(["create schema main", *SOURCES])
    return bigquery_site


@pytest.fixture(params=["duckdb", "postgres"])
def project(request: pytest.FixtureRequest) -> Project:
    """The project on each warehouse."""
    found: Project = request.getfixturevalue(f"{request.param}_project")
    return found


@pytest.fixture
def site(project: Project) -> Iterator[Warm]:
    """The project, ready to run, on each warehouse."""
    yield from _session(project)


@pytest.fixture
def duckdb_site_warm(duckdb_project: Project) -> Iterator[Warm]:
    yield from _session(duckdb_project)


@pytest.fixture
def postgres_site_warm(postgres_project: Project) -> Iterator[Warm]:
    yield from _session(postgres_project)


@pytest.fixture
def bigquery_site_warm(bigquery_project: Project) -> Iterator[Warm]:
    yield from _session(bigquery_project)


def _session(project: Project) -> Iterator[Warm]:
    warm = Warm.of(project)
    with warehouse.session(warm):
        yield warm
