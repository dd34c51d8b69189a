"""Which requests share a run although nothing connects their tables."""

from __future__ import annotations

from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st
from tests.planning.projects import blank, by, land, project, source, table, utc

from t2.planning.packing import packed
from t2.planning.planner import plan
from t2.planning.verdict import Request
from t2.project.model import Grain, Project

HOURS = by(Grain.HOUR, datetime(2024, 3, 4, 23))
NOW = utc(2024, 3, 5)  # one hour is over


def hourly(count: int, **settings: object) -> Project:
    tables = [table(f"t{number}", HOURS, "raw/s", **settings) for number in range(count)]
    return project(source("s", HOURS), *tables)


def asked(made: Project) -> tuple[Request, ...]:
    state = blank(made, NOW)
    land(state, "raw/s", 0)
    return plan(made, state, NOW).requests


def runs(made: Project, tables: int = 3) -> list[tuple[str, ...]]:
    return [request.tables for request in packed(made, asked(made), tables)]


def test_tables_that_are_ready_for_the_same_partition_share_runs() -> None:
    assert runs(hourly(5)) == [("m/t0", "m/t1", "m/t2"), ("m/t3", "m/t4")]


def test_isolated_and_self_dependent_tables_have_runs_of_their_own() -> None:
    made = project(
        source("s", HOURS),
        table("a", HOURS, "raw/s"),
        table("b", HOURS, "raw/s", isolation="table"),
        table("c", HOURS, "raw/s"),
    )
    assert runs(made) == [("m/a", "m/c"), ("m/b",)]


def test_other_partitions_and_grains_do_not_share_a_run() -> None:
    made = project(table("a"), table("b", by(Grain.DAY)), table("c"), table("d", by(Grain.HOUR)))
    found = packed(made, plan(made, blank(made, NOW), NOW, max_requests=4).requests)
    assert [(request.tables, request.first) for request in found] == [
        (("m/a", "m/c"), None),
        (("m/b",), "2024-03-04"),
        (("m/d",), "2024-03-04-22:00"),
    ]


def test_the_tables_of_a_run_are_in_dependency_order() -> None:
    made = project(
        source("s", HOURS),
        table("a", HOURS, "raw/s"),
        table("b", HOURS, "raw/s"),
        table("a_below", HOURS, "m/a"),
    )
    assert runs(made) == [("m/a", "m/b", "m/a_below")]


def test_a_run_key_depends_on_all_that_share_the_run() -> None:
    made = hourly(3)
    one, two, three = asked(made)
    [all_of_them] = packed(made, [one, two, three])
    [two_of_them] = packed(made, [one, two])
    assert len({all_of_them.run_key, two_of_them.run_key, one.run_key}) == 3
    assert packed(made, [one, two, three]) == [all_of_them]
    assert packed(made, [one]) == [one]


@given(st.integers(0, 30), st.integers(1, 9))
def test_every_table_is_in_one_run_and_no_run_is_too_large(count: int, limit: int) -> None:
    made = hourly(count)
    found = packed(made, asked(made), limit)
    assert sorted(key for request in found for key in request.tables) == sorted(made.tables)
    assert all(len(request.tables) <= limit for request in found)
    assert len(found) == -(-count // limit)
