"""Following in pages of any size, through crashes and repetitions, is the same as starting from nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.ledger.event_log import content, create_log, write
from tests.ledger.projects import NOW, PROJECT, plain, reference
from tests.ledger.strategies import histories

from t2.ledger.apply import apply
from t2.ledger.events import Event
from t2.ledger.ledger import Ledger
from t2.ledger.wipes import empty

QUICK = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


class CrashError(Exception):
    pass


def follow_with_crashes(ledger: Ledger, limit: int, crashes: set[int]) -> int:
    """Follow until nothing is new; the commits with these numbers fail. Return how many were tried."""
    commits = 0

    def commit(_connection: Any) -> None:
        nonlocal commits
        commits += 1
        if commits in crashes:
            raise CrashError

    sa.event.listen(ledger.engine, "commit", commit)
    try:
        while True:
            try:
                ledger.follow(limit)
                return commits
            except CrashError:
                continue
    finally:
        sa.event.remove(ledger.engine, "commit", commit)


def check_history(url: str, events: Sequence[Event], cuts: list[int], limit: int, crashes: set[int]) -> None:
    engine = create_log(url)
    ledger = Ledger(url, settle_seconds=0)
    for low, high in zip([0, *cuts], [*cuts, len(events)], strict=True):
        write(engine, events[low:high])
        follow_with_crashes(ledger, limit, crashes)
        assert plain(ledger.state(PROJECT, NOW)) == reference(PROJECT, events[:high])
    followed = content(ledger)
    other = Ledger(url, settle_seconds=0)
    assert plain(other.state(PROJECT, NOW)) == reference(PROJECT, events)
    other.rebuild()
    assert content(other) == followed
    ledger.follow()
    assert plain(ledger.state(PROJECT, NOW)) == reference(PROJECT, events)
    engine.dispose()
    ledger.engine.dispose()
    other.engine.dispose()


@st.composite
def scenarios(draw: st.DrawFn) -> tuple[list[Event], list[int], int, set[int]]:
    events = draw(histories())
    cuts = sorted(draw(st.lists(st.integers(0, len(events)), max_size=3)))
    return events, cuts, draw(st.integers(2, 20)), draw(st.sets(st.integers(1, 12), max_size=3))


@settings(QUICK, max_examples=25)
@given(scenarios())
def test_pages_crashes_and_a_rebuild_come_to_the_same(scenario: tuple[Any, ...]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        check_history(f"sqlite:///{Path(directory) / 'index.db'}", *scenario)


@settings(QUICK, max_examples=8)
@given(scenario=scenarios())
def test_pages_crashes_and_a_rebuild_come_to_the_same_on_postgres(
    postgres: str, scenario: tuple[Any, ...]
) -> None:
    engine = sa.create_engine(postgres)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    engine.dispose()
    check_history(postgres, *scenario)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    url = f"sqlite:///{tmp_path_factory.mktemp('scratch') / 'index.db'}"
    create_log(url)
    return Ledger(url)


@settings(QUICK, max_examples=25)
@given(events=histories(), data=st.data())
def test_events_may_come_in_any_order_and_more_than_once(
    scratch: Ledger, events: list[Event], data: st.DataObject
) -> None:
    contents = []
    repeated = data.draw(st.permutations(events + data.draw(st.lists(st.sampled_from(events), max_size=5))))
    size = data.draw(st.integers(1, 10))
    for order, page in ((events, len(events)), (repeated, size)):
        with scratch.engine.begin() as connection:
            empty(connection)
            for start in range(0, len(order), page):
                apply(connection, order[start : start + page], {})
        contents.append(content(scratch))
    assert contents[0] == contents[1]
