"""One writer process at a time: turns at a DuckDB file."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from tests.runtime.projects import NOW, days

from t2.errors import DbtError
from t2.project.model import Project
from t2.runtime import warehouse
from t2.runtime.build import build
from t2.runtime.warm import Warm


def _take_turns(project: Project, keys: list[str], answers: Any) -> None:
    warm = Warm.of(project)
    for key in keys:
        with warehouse.session(warm):
            list(build(warm, project.tables["main/orders"], [key], tests=(), now=NOW))
    answers.put(keys)


def test_processes_take_turns_at_the_file(project: Project) -> None:
    """Regression: a forked child that loaded dbt in its parent opens the file only in its turn."""
    warm = Warm.of(project)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    parts = [days(1, 2), days(3, 4), days(5, 6)]
    children = [context.Process(target=_take_turns, args=(project, part, answers)) for part in parts]
    for child in children:
        child.start()
    assert sorted(answers.get(timeout=60) for _ in children) == parts
    for child in children:
        child.join()
    with warehouse.session(warm):
        assert warm.query("select count(*) as n from orders") == [{"n": 12}]


def test_a_session_is_shared_by_threads_and_closes_with_the_last(project: Project) -> None:
    warm = Warm.of(project)
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with warehouse.session(warm), warehouse.session(warm):
            inside.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with warehouse.session(warm):
        thread.start()
        inside.wait()
    assert warm.query("select 1 as n") == [{"n": 1}]
    assert not _opens(project)
    leave.set()
    thread.join()
    assert _opens(project)


def test_a_foreign_program_is_waited_for(project: Project) -> None:
    started = time.monotonic()
    with _Foreign(project, seconds=0.7), warehouse.session(Warm.of(project)):
        assert time.monotonic() - started > 0.7


def test_a_foreign_program_is_named_when_patience_ends(project: Project) -> None:
    complaint = pytest.raises(DbtError, match="another program has kept the DuckDB file open for 0 s")
    with (
        _Foreign(project, seconds=30),
        complaint,
        warehouse.session(Warm.of(project), foreign_seconds=0.2),
    ):
        pass
    # The turn was given up with the error.
    with warehouse.session(Warm.of(project)):
        pass


class _Foreign:
    """A program that opens the file without asking for its turn."""

    def __init__(self, project: Project, seconds: float) -> None:
        code = f"import duckdb, time; c = duckdb.connect({_file(project)!r}); print(flush=True)"
        code = f"{code}; time.sleep({seconds})"
        self.process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)

    def __enter__(self) -> None:
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        time.sleep(0.05)


def _file(project: Project) -> str:
    return str(Warm.of(project).file)


def _opens(project: Project) -> bool:
    code = f"import duckdb; duckdb.connect({_file(project)!r})"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
