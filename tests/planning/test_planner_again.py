"""A plan that takes over what has not changed since the last one is the plan that knows no last one."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.planning.projects import (
    blank,
    by,
    chance_open,
    chance_policies,
    chance_project,
    chance_state,
    fail,
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


def grown(made: Project, past: State, now: datetime) -> State:
    """Return new arrays of the same, with the partitions that are over by now."""
    fresh = blank(made, now, dict(past.codes))
    tables = {}
    for key, new in fresh.tables.items():
        old = past.tables[key]
        if old.count == new.count:
            tables[key] = old
            continue
        for name, value in vars(old).items():
            if isinstance(value, np.ndarray):
                getattr(new, name)[: old.count] = value
        tables[key] = replace(new, active_runs=old.active_runs, wiped_id=old.wiped_id, barred={})
    return replace(past, tables=tables)


def happens(dice: random.Random, made: Project, state: State, now: datetime) -> State:
    """Let something small happen to a table or source."""
    key = dice.choice([*made.sources, *made.tables])
    count = state.tables[key].count
    if not count:
        return state
    past = replace(state.tables[key])
    for name, value in vars(past).items():
        if isinstance(value, np.ndarray):
            setattr(past, name, value.copy())
    state = replace(state, tables={**state.tables, key: past})
    index = dice.choice([count - 1, dice.randrange(count)])
    what = dice.choice(["land", "land", "land", "fail", "active", "blocked", "nothing"])
    if what == "land":
        land(state, key, index, at=now)
        past.active[index] = 0
    elif what == "fail" and key in made.tables:
        fail(state, key, index, now, seconds_ago=dice.choice([1, 60]))
    elif what == "active" and key in made.tables:
        past.active[index], past.active_runs = dice.choice([(1, 1), (2, 1), (0, 0)])
    elif what == "blocked":
        past.blocked[index] = not past.blocked[index]
    return state


@given(st.integers(0, 2**32), st.integers(3, 8))
@settings(max_examples=150)
def test_after_something_small_it_is_the_plan_that_knows_no_last_one(seed: int, size: int) -> None:
    dice = random.Random(seed)
    now = dice.choice(CLOCKS)
    made = chance_project(dice, now, size)
    if plain := dice.random() < 0.5:
        state = chance_state(dice, made, now)
    else:
        made = chance_open(dice, made)
        made, state = chance_policies(dice, made, chance_state(dice, made, now), now)
    for past in state.tables.values():
        past.barred = {} if plain else dice.choice([past.barred, {}])
    state.wanted = {}
    last = plan(made, state, now)
    for _ in range(12):
        now += timedelta(seconds=dice.choice([0, 1, 31, 3600]))
        state = grown(made, state, now)
        for _ in range(dice.choice([0, 1, 1, 3])):
            state = happens(dice, made, state, now)
        fresh = plan(made, state, now)
        last = plan(made, state, now, last=last)
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
