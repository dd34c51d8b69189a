"""What an emulator of BigQuery that others wrote makes of the tables, beside DuckDB: the same rows.

It has neither copy jobs into partitions nor transactions that conflict, so this is about tables that are
written by statements, one after the other. `make test-adapters` installs it and runs this.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.dbt_package.bigquery_project import MODELS, SOURCES
from tests.dbt_package.bigquery_server import PROJECT
from tests.dbt_package.projects import FILES, days, write
from tests.dbt_package.run import rows, run

import t2
from t2.runtime import warehouse
from t2.runtime.warm import Warm

VENV = Path(__file__).parents[2] / ".venv-bigquery"
WRITE = "meta: {t2: {bigquery: {write: merge}}}"
BY_STATEMENT = {
    "{name: replaced}": f"{{name: replaced, config: {{{WRITE}}}}}",
    "{incremental_strategy: append}}\n": f"{{incremental_strategy: append, {WRITE}}}}}\n",
}
pytestmark = [
    pytest.mark.adapters,
    pytest.mark.skipif(sys.version_info < (3, 11), reason="the emulator needs Python 3.11"),
]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running emulator."""
    port, log = free_port(), tmp_path_factory.mktemp("emulator") / "log"
    command = ["start", "--rest-port", str(port), "--grpc-port", str(free_port()), "--project", PROJECT]
    environment = {**os.environ, "HOME": str(VENV / "home")}
    with log.open("w") as output:
        process = subprocess.Popen(
            [VENV / "bin/bqemulator", *command], env=environment, stdout=output, stderr=output
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{url}/bigquery/v2/projects/{PROJECT}/datasets", process, log)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(log.read_text()[-2000:])


@pytest.fixture(scope="module")
def emulated(emulator: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    profile = (
        f"{{type: bigquery, method: oauth-secrets, token: x, project: {PROJECT}, dataset: main, threads: 4,"
        f" api_endpoint: '{emulator}'}}"
    )
    models = FILES["models/models.yml"]
    for old, new in BY_STATEMENT.items():
        assert old in models
        models = models.replace(old, new)
    files = {**MODELS, "models/models.yml": models}
    warm = Warm.of(t2.load_project(write(tmp_path_factory.mktemp("emulated"), profile, files)))
    with warehouse.session(warm):
        for statement in ("create schema main", *SOURCES):
            warm.query(statement)
        yield warm


@pytest.mark.parametrize("name", ["replaced", "appended", "spans", "visitors", "daily_key"])
def test_the_emulator_has_the_rows_that_duckdb_has(emulated: Warm, duckdb_site_warm: Warm, name: str) -> None:
    order = [days(4), days(2), days(2), days(1), days(4)]
    found = []
    for warm, prefix in ((emulated, "main."), (duckdb_site_warm, "")):
        for keys in order:
            run(warm, name, keys)
        found.append(sorted(rows(warm, f"select * from {prefix}{name}"), key=str))
    assert found[0] == found[1]
    assert len(found[0]) > 3
