"""A project with a family of real processes, driven through the web server as a user would."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

DEFINITIONS = """
import time
import dagster as dg

@dg.asset
def quick():
    print("said by the run")
    return dg.MaterializeResult(metadata={"text": "old"})

@dg.asset
def fails() -> None:
    raise ValueError("no such luck")

@dg.asset
def slow() -> None:
    for _ in range(1200):
        time.sleep(0.1)

"""
ALONE = """
defs = dg.Definitions(assets=[quick, fails, slow], executor=dg.in_process_executor)
"""
# The same beside a dbt project.
WITH_DBT = """
from pathlib import Path
import t2
defs = dg.Definitions.merge(
    t2.build_defs(Path(__file__).parent, automation=False), dg.Definitions(assets=[quick, fails, slow])
)
"""
DBT = {
    "dbt_project.yml": "name: mine\nprofile: mine\n",
    "profiles.yml": "mine: {target: dev, outputs: {dev: {type: duckdb, path: mine.duckdb, schema: main}}}\n",
    "models/one.sql": "select 1 as id",
    "models/two.sql": "select id from {{ ref('one') }}",
    "models/models.yml": "models: [{name: one, columns: [{name: id, data_tests: [not_null]}]}]\n",
}

LAUNCH = """
mutation($keys: [AssetKeyInput!]!, $tags: [ExecutionTag!]!) { launchRun(executionParams: {
    selector: {repositoryLocationName: "t2", repositoryName: "__repository__", jobName: "__ASSET_JOB",
               assetSelection: $keys},
    executionMetadata: {tags: $tags},
    runConfigData: {}, mode: "default"}) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }
"""
RUN = """
query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }
"""
EVENTS = """
query($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events {
    __typename ... on MessageEvent { message }
    ... on ExecutionStepFailureEvent { error { cause { message } } }
    ... on MaterializationEvent { metadataEntries { label ... on TextMetadataEntry { text } } } } } } }
"""
TERMINATE = """
mutation($id: String!) { terminateRun(runId: $id) { __typename } }
"""


def make_project(path: Path, *, dbt: bool = False) -> Path:
    """Write a project whose code location is the module `mine`, with or without tables of dbt."""
    path.mkdir()
    for name, text in (DBT if dbt else {"dbt_project.yml": "name: mine\n"}).items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(text)
    (path / "mine.py").write_text(DEFINITIONS + (WITH_DBT if dbt else ALONE))
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], T], seconds: float) -> T:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)
    return found


class Web:
    """What a user does on the page."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/graphql", body, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            found = json.load(answer)
        assert "errors" not in found, found["errors"]
        return found["data"]

    def launch(self, *names: str, **tags: str) -> str:
        """Launch a run of assets, named "schema/name"; waits for a code server that starts again."""
        keys = [{"path": name.split("/")} for name in names]
        pairs = [{"key": f"dagster/{name}", "value": value} for name, value in tags.items()]
        return until(lambda: self._launched(keys, pairs), 30)["runId"]

    def _launched(self, keys: list[Any], tags: list[Any]) -> dict[str, Any] | None:
        try:
            return self.ask(LAUNCH, keys=keys, tags=tags)["launchRun"].get("run")
        except urllib.error.URLError:  # the web server says that it serves a moment before it does
            return None

    def status(self, run_id: str) -> str:
        return self.ask(RUN, id=run_id)["runOrError"]["status"]

    def terminate(self, run_id: str) -> str:
        return self.ask(TERMINATE, id=run_id)["terminateRun"]["__typename"]

    def events(self, run_id: str) -> list[dict[str, Any]]:
        return self.ask(EVENTS, id=run_id)["logsForRun"]["events"]

    def wait(self, run_id: str, status: str, seconds: float = 20) -> None:
        until(lambda: self.status(run_id) == status, seconds)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """The processes that a process started itself and that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid and is_running(int(path.name)):
            found.append(int(path.name))
    return found
