"""Many builds of one new table at once, while processes are killed: the table is exactly right afterwards.

One round of each is in `make test`, fifty in `make soak`.
"""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from tests.dbt_package.run import execute, leftovers, rows, run

from t2.project.model import Project
from t2.runtime import warehouse
from t2.runtime.warm import Warm

FORK = multiprocessing.get_context("fork")
KEYS = [str(date(2024, 1, 1) + timedelta(days=number)) for number in range(64)]
BUILDERS = 8
WRONG = {
    "replaced": "select * from replaced {0} select * from raw.visits",
    "appended": "select * from appended {0} select * from raw.visits",
    "spans": "select visitor, site, first_seen, last_seen, most from spans {0}"
    " select visitor, site, min(day), max(day), max(pages) from raw.visits group by 1, 2",
}
TABLES = tuple(WRONG)


def fill(warm: Warm, rows_a_day: int) -> None:
    """64 days of visits by visitors who come again on other days."""
    execute(warm, "delete from raw.visits")
    for start in range(0, len(KEYS), 16):
        values = ", ".join(
            f"({(7 * day + number) % (3 * rows_a_day)}, 's{number % 3}', {number}, date '{KEYS[day]}')"
            for day in range(start, start + 16)
            for number in range(rows_a_day)
        )
        execute(warm, f"insert into raw.visits values {values}")


def assert_exactly_right(warm: Warm, table: str) -> None:
    expected = WRONG[table]
    left, right = expected.split("{0}")
    for query in (f"{left} except all {right}", f"({right}) except all ({left})"):
        assert rows(warm, f"select count(*) as n from ({query}) as wrong") == [(0,)]


class Builder:
    """A process that builds keys and says which it has built."""

    def __init__(self, work: Callable[[Callable[[str], None]], None], keys: list[str]) -> None:
        self.keys = keys
        self.told, telling = FORK.Pipe(duplex=False)
        self.process = FORK.Process(target=_work, args=(work, telling))
        self.process.start()
        telling.close()

    def ended(self) -> bool:
        return not self.process.is_alive()

    def kill(self) -> None:
        self.process.kill()  # which also may have ended meanwhile
        self.process.join()

    def missing(self) -> list[str]:
        """Return the keys that the ended process did not tell; one that failed by itself is a failure."""
        self.process.join()
        done = []
        try:
            while True:
                done.append(self.told.recv())
        except EOFError:
            pass
        errors = [word for word in done if word not in self.keys]
        assert self.process.exitcode in (0, -signal.SIGKILL), errors
        return [key for key in self.keys if key not in done]


def _work(work: Callable[[Callable[[str], None]], None], telling: Connection) -> None:
    try:
        work(telling.send)
    except BaseException as error:
        telling.send(f"{type(error).__name__}: {error}")
        raise


def build_keys(project: Project, table: str, keys: list[str], tell: Callable[[str], None]) -> None:
    warm = Warm.of(project)
    with warehouse.session(warm):
        for key in keys:
            run(warm, table, [key])
            tell(key)


def build_keys_in_threads(project: Project, table: str, keys: list[str], tell: Callable[[str], None]) -> None:
    warm = Warm.of(project)

    def build_key(key: str) -> None:
        run(warm, table, [key])
        tell(key)

    with warehouse.session(warm), ThreadPoolExecutor(BUILDERS) as pool:
        for future in [pool.submit(build_key, key) for key in keys]:
            future.result()


def storm_of_processes(project: Project, table: str, chance: random.Random, kills: int) -> int:
    """Build all keys by eight processes at a time, some twice at once; return how many were killed."""
    todo = [*KEYS, *chance.sample(KEYS, 8)]
    chance.shuffle(todo)
    builders: list[Builder] = []
    killed = 0
    while todo or builders:
        while todo and len(builders) < BUILDERS:
            keys, todo = todo[:6], todo[6:]
            builders.append(Builder(lambda tell, keys=keys: build_keys(project, table, keys, tell), keys))
        time.sleep(chance.uniform(0.01, 0.15))
        if killed < kills:
            chance.choice(builders).kill()
            killed += 1
        for builder in [builder for builder in builders if builder.ended()]:
            builders.remove(builder)
            todo += builder.missing()
    return killed


def storm_of_threads(project: Project, table: str, chance: random.Random, kills: int) -> int:
    """Build all keys by eight threads of one process, which is killed and started again."""
    todo = list(KEYS)
    killed = 0
    while todo:
        chance.shuffle(todo)
        builder = Builder(lambda tell, keys=todo: build_keys_in_threads(project, table, keys, tell), todo)
        if killed < kills:
            builder.process.join(chance.uniform(0.3, 1.5))
            builder.kill()
            killed += 1
        todo = builder.missing()
    return killed


@contextmanager
def opened(project: Project) -> Iterator[Warm]:
    warm = Warm.of(project)
    with warehouse.session(warm):
        yield warm


def wait_for_killed_backends(warm: Warm) -> None:
    """PostgreSQL notices that a client is gone when it next talks to it."""
    others = (
        "select state, query from pg_stat_activity where backend_type = 'client backend'"
        " and datname = current_database() and pid <> pg_backend_pid()"
    )
    until = time.monotonic() + 20
    while rows(warm, others) and time.monotonic() < until:
        time.sleep(0.05)
    assert rows(warm, others) == []


def round_on_postgres(project: Project, table: str, seed: int, kills: int) -> int:
    """Build the new table, look whether it is right, and return how many processes were killed."""
    with opened(project) as warm:
        execute(warm, f"drop table if exists {table}")
        fill(warm, 20)
    killed = storm_of_processes(project, table, random.Random(seed), kills)
    with opened(project) as warm:
        wait_for_killed_backends(warm)
        assert_exactly_right(warm, table)
        assert leftovers(warm) == []
        assert rows(warm, "select count(*) as n from pg_locks where locktype = 'advisory'") == [(0,)]
    return killed


def round_on_duckdb(project: Project, table: str, seed: int, kills: int) -> int:
    """Build the new table, look whether it is right, and return how many processes were killed."""
    file = Path(project.root) / "site.duckdb"
    with opened(project) as warm:
        execute(warm, f"drop table if exists {table}")
        fill(warm, 20)
    killed = storm_of_threads(project, table, random.Random(seed), kills)
    with opened(project) as warm:
        assert_exactly_right(warm, table)
        assert leftovers(warm) == []
    assert not list(file.parent.glob("site.duckdb.tmp*"))
    return killed


def test_64_partitions_of_a_new_table_by_8_processes_that_are_killed(postgres_project: Project) -> None:
    round_on_postgres(postgres_project, "replaced", seed=1, kills=8)


def test_64_partitions_of_a_new_table_by_8_threads_of_a_killed_process(duckdb_project: Project) -> None:
    round_on_duckdb(duckdb_project, "replaced", seed=1, kills=2)


@pytest.mark.soak
@pytest.mark.parametrize("storm", [round_on_postgres, round_on_duckdb])
def test_50_storms(request: pytest.FixtureRequest, storm: Callable[[Project, str, int, int], int]) -> None:
    name = "postgres_project" if storm is round_on_postgres else "duckdb_project"
    project = request.getfixturevalue(name)
    for seed in range(50):
        table, started = TABLES[seed % 3], time.monotonic()
        killed = storm(project, table, seed, seed % (13 if storm is round_on_postgres else 5))
        print(f"storm {seed} of {table}: {killed} killed, {time.monotonic() - started:.1f} s", flush=True)
