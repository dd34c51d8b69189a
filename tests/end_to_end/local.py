"""A project with a family of real processes, driven through the web server as a user would."""

from __future__ import annotations

import json
import os
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
    time.sleep(120)

defs = dg.Definitions(assets=[quick, fails, slow], executor=dg.in_process_executor)
"""

LAUNCH = """
mutation($key: [String!]!) { launchRun(executionParams: {
    selector: {repositoryLocationName: "t2", repositoryName: "__repository__", jobName: "__ASSET_JOB",
               assetSelection: [{path: $key}]},
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


def make_project(path: Path) -> Path:
    """Write a project whose code location is the module `mine`."""
    path.mkdir()
    (path / "dbt_project.yml").write_text("name: mine\n")
    (path / "mine.py").write_text(DEFINITIONS)
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

    def ask(self, query: str, **variables: str | list[str]) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/graphql", body, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            found = json.load(answer)
        assert "errors" not in found, found["errors"]
        return found["data"]

    def launch(self, *key: str) -> str:
        """Launch a run of the asset with this key; waits for a code server that starts again."""
        answer = until(lambda: self._launched(key), 30)
        return answer["runId"]

    def _launched(self, key: tuple[str, ...]) -> dict[str, Any] | None:
        try:
            return self.ask(LAUNCH, key=list(key))["launchRun"].get("run")
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


def group(pid: int) -> list[int]:
    """The processes of a process group."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(path.name)) == pid and is_running(int(path.name)):
                found.append(int(path.name))
        except ProcessLookupError:
            continue
    return found
