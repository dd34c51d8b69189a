"""A plan that takes over what has not changed since the last one is the plan that knows no last one."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.planning.projects import (
    blank,
    by,
    chance_open,
    chance_policies,
    chance_project,
    chance_state,
    land,
    project,
    source,
    table,
    utc,
)
from tests.planning.test_planner_against_reference import CLOCKS

from t2.planning.planner import Plan, plan
from t2.planning.state import State
from t2.project.model import Grain, Project


def contents(made: Plan) -> dict[str, list[object]]:
    """Return all that a plan says, as values that can be compared."""
    found: dict[str, list[object]] = {"requests": list(made.requests), "next": [made.next_change]}
    for key in made.project.tables:
        found[key] = [made.outcomes[key].tolist(), made.stale[key].tolist()]
    for key, offered in made.settled.items():
        outside = made.outside[key]
        for one in (offered, outside):
            for array in (one.usable, one.busy, one.stuck, one.ready):
                found.setdefault(f"settled {key}", []).append(array.tolist())
    return found


def some_of(dice: random.Random, old: State, new: State) -> State:
    """Return a state in which some tables are what they were, the very same objects."""
    share = dice.choice([0.0, 0.1, 0.5])
    same = {key for key in old.tables if dice.random() >= share}
    same = {key for key in same if old.tables[key].count == new.tables[key].count}
    tables = {key: (old if key in same else new).tables[key] for key in new.tables}
    return replace(new, tables=tables, wanted=dice.choice([{}, new.wanted]))


@settings(max_examples=200)
@given(st.integers(0, 2**32), st.integers(3, 8))
def test_a_plan_is_the_same_with_and_without_the_last_one(seed: int, size: int) -> None:
    dice = random.Random(seed)
    now = dice.choice(CLOCKS)
    made: Project = chance_open(dice, chance_project(dice, now, size))
    made, state = chance_policies(dice, made, chance_state(dice, made, now), now)
    last = plan(made, state, now, max_requests=dice.choice([100, 1]))
    for _ in range(5):
        now += timedelta(seconds=dice.choice([0, 1, 31, 3600]))
        state = some_of(dice, state, chance_state(dice, made, now))
        limit = dice.choice([100, 1])
        fresh = plan(made, state, now, max_requests=limit)
        last = plan(made, state, now, max_requests=limit, last=last)
        assert contents(last) == contents(fresh)


def test_a_table_of_which_nothing_changed_keeps_its_part() -> None:
    hours = by(Grain.HOUR)
    made = project(
        source("s", hours),
        table("a", hours, "raw/s"),
        table("b", hours),
        table("c", hours, "m/a"),
        table("d", hours, "m/c"),
    )
    now = utc(2024, 3, 4, 3)
    state = blank(made, now)
    first = plan(made, state, now)
    tables = dict(state.tables)
    tables["m/a"] = replace(tables["m/a"], active_runs=1)
    second = plan(made, replace(state, tables=tables), now, last=first)
    same = [key for key in made.tables if second.kept[key].offered is first.kept[key].offered]
    assert same == ["m/b", "m/c", "m/d"]  # c was worked out anew, and is as it was
    land(state, "raw/s", 0)  # a caller that writes into a state's arrays must not give the last plan
    assert plan(made, state, now).requests != first.requests
