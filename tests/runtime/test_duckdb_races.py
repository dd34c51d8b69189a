"""Eight processes build the partitions of one new table through the server, and anybody may be killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.runtime.projects import NOW
from tests.runtime.servers import RunningServer, running_server

from t2.project.model import Project
from t2.runtime import warehouse
from t2.runtime.build import build
from t2.runtime.duckdb_client import locked
from t2.runtime.warm import Warm

FORK = multiprocessing.get_context("fork")
PROCESSES = 8
PARTITIONS = [f"2024-01-{day:02d}" for day in range(1, 17)]
ROWS = 50
KILLS = 4
SERVER_KILLS = 2


def _build(project: Project, keys: Sequence[str]) -> None:
    code = 1
    try:
        warm = Warm.of(project)
        with warehouse.session(warm):
            for key in keys:
                list(build(warm, project.tables["main/strict"], [key], tests=(), now=NOW))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _start(project: Project, keys: Sequence[str]) -> Any:
    child = FORK.Process(target=_build, args=(project, keys))
    child.start()
    return child


def _race(project: Project, server: RunningServer, seed: int) -> int:
    """Have two processes build each partition while processes are killed; return how many kills hit."""
    chance = random.Random(seed)
    # Two processes side by side on the same partitions: a third build would repair what they doubled.
    todo = [PARTITIONS[number // 2 :: PROCESSES // 2] for number in range(PROCESSES)]
    running = {number: _start(project, keys) for number, keys in enumerate(todo)}
    plan = ["client"] * KILLS + ["server"] * SERVER_KILLS
    chance.shuffle(plan)
    hit, at = 0, time.monotonic() + chance.uniform(0.1, 0.6)
    deadline = time.monotonic() + 120
    while running:
        assert time.monotonic() < deadline, f"{len(running)} processes do not end"
        time.sleep(0.01)
        if plan and time.monotonic() > at:
            if plan.pop() == "server":
                server.kill()
                server.start()
            else:
                os.kill(chance.choice(list(running.values())).pid, signal.SIGKILL)
            hit += 1
            at = time.monotonic() + chance.uniform(0.05, 0.6)
        for number, child in list(running.items()):
            if not child.is_alive():
                child.join()
                assert child.exitcode in (0, -signal.SIGKILL), f"a build failed: {child.exitcode}"
                del running[number]
                if child.exitcode:  # what Dagster does with a run that died: all of it again
                    running[number] = _start(project, todo[number])
    return hit


def _prepare(project: Project) -> None:
    with duckdb.connect(str(Path(project.root) / "shop.duckdb")) as connection:
        connection.execute(
            f"create or replace table raw.orders as select day * {ROWS} + row as id, 1 as amount,"
            " date '2024-01-01' + day::integer as ordered_on, timestamp '2024-02-01' as loaded_at"
            f" from range({len(PARTITIONS)}) as days(day), range({ROWS}) as rows(row)"
        )
        connection.execute("create or replace table orders as select id, amount, ordered_on from raw.orders")
        # The table's post-hook inserts here before the commit: two builds without a lock are sure to overlap.
        slow = "list_sum(range(1000000 + length(name))) > 0"
        connection.execute(f"create or replace table raw.hooks (name varchar check ({slow}))")


def _look(project: Project) -> dict[str, Any]:
    with duckdb.connect(str(Path(project.root) / "shop.duckdb"), read_only=True) as connection:
        return {
            "rows": connection.execute("select ordered_on::varchar, rows_ from strict order by 1").fetchall(),
            "tables": connection.execute("select table_name from duckdb_tables() order by 1").fetchall(),
        }


RIGHT = {
    "rows": [(key, ROWS) for key in PARTITIONS],
    "tables": [("hooks",), ("orders",), ("orders",), ("rates",), ("strict",)],
}


def _repeat(project: Project, seed: int) -> None:
    _prepare(project)
    Warm.of(project).prepare()
    root = Path(project.root)
    with running_server(root) as server:
        hit = _race(project, server, seed)
        with locked(root, [f"main/strict {key}" for key in PARTITIONS]):
            pass  # every lock is free
    assert _look(project) == RIGHT
    assert not [path for path in root.glob("shop.duckdb.*") if path.suffix not in (".t2lock", ".t2gate")]
    assert hit >= KILLS


def test_whoever_is_killed_every_partition_is_there_once(project: Project) -> None:
    _repeat(project, 1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 22))
def test_whoever_is_killed_every_partition_is_there_once_again(project: Project, seed: int) -> None:
    _repeat(project, seed)
