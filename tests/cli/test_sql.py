"""`t2 sql`: the same answers with and without a warehouse server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner, Result
from tests.runtime.servers import running_server

from t2.cli import group
from t2.errors import ConfigError, DbtError, NotFound

PROFILE = """
small:
  target: dev
  outputs:
    dev: {type: duckdb, path: small.duckdb}

"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("small")
    (root / "models").mkdir()
    (root / "dbt_project.yml").write_text("name: small\nprofile: small\n")
    (root / "profiles.yml").write_text(PROFILE)
    (root / "models" / "one.sql").write_text("select 1 as id")
    return root


@pytest.fixture(params=["alone", "beside t2 dev"])
def project(request: pytest.FixtureRequest, root: Path) -> Iterator[Path]:
    (root / "small.duckdb").unlink(missing_ok=True)
    with duckdb.connect(str(root / "small.duckdb")) as connection:
        connection.execute("create table orders as select 1 as id, 'a' as name union all select 2, null")
    if request.param == "alone":
        yield root
    else:
        with running_server(root):
            yield root


def sql(project: Path, *arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(group, ["sql", *arguments, "--project-dir", str(project)], input=stdin)


def test_rows_are_a_table_json_or_csv(project: Path) -> None:
    query = "select * from orders order by id"
    assert sql(project, query).stdout == "id  name\n1   a\n2   NULL\n"
    assert json.loads(sql(project, query, "--format", "json").stdout) == [
        {"id": 1, "name": "a"},
        {"id": 2, "name": None},
    ]
    assert sql(project, "--file", "-", "--format", "csv", stdin=query).stdout == "id,name\n1,a\n2,\n"


def test_only_csv_and_json_print_more_than_a_hundred_rows(project: Path) -> None:
    table = sql(project, "from range(3000)")
    assert len(table.stdout.splitlines()) == 101
    assert table.stderr.splitlines()[-1] == "only the first 100 rows; --format csv prints all of them"
    assert len(sql(project, "from range(3000)", "--format", "csv").stdout.splitlines()) == 3001


def test_writing_has_to_be_asked_for_and_is_one_transaction(project: Path) -> None:
    insert = "insert into orders values (3, 'c'); insert into orders values ('x', 'd')"
    refused = sql(project, "delete from orders").exception
    assert isinstance(refused, DbtError)
    assert refused.hint == "add --write if this is meant to write"
    assert isinstance(sql(project, "--write", insert).exception, DbtError)
    assert isinstance(sql(project, "commit; delete from orders").exception, ConfigError)
    assert sql(project, "select count(*) as n from orders").stdout == "n\n2\n"
    assert sql(project, "--write", "insert into orders values (3, 'c')").exit_code == 0
    assert sql(project, "select count(*) as n from orders").stdout == "n\n3\n"


def test_a_copy_is_a_file_that_anybody_can_open(project: Path, tmp_path: Path) -> None:
    for rows in (2, 3):
        copied = sql(project, "--copy", str(tmp_path / "copies" / "small.duckdb"))
        assert copied.stdout.startswith("copied ")
        with duckdb.connect(str(tmp_path / "copies" / "small.duckdb"), read_only=True) as connection:
            assert connection.execute("select count(*) from orders").fetchone() == (rows,)
        assert sql(project, "--write", "insert into orders values (3, 'c')").exit_code == 0
    assert [path.name for path in (tmp_path / "copies").iterdir()] == ["small.duckdb"]


def test_what_cannot_be_asked_is_said(root: Path, tmp_path: Path) -> None:
    (root / "small.duckdb").unlink(missing_ok=True)
    assert isinstance(sql(root, "select 1").exception, NotFound)
    assert isinstance(sql(root).exception, ConfigError)
    assert isinstance(sql(root, "select 1", "--copy", str(tmp_path / "copy")).exception, ConfigError)
