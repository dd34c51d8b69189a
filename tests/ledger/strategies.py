"""Random histories: runs that plan, build, check, fail and end, side by side."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from t2.ledger.events import (
    CheckPlanned,
    Evaluated,
    Event,
    Failed,
    Materialized,
    Planned,
    RunChanged,
    Skipped,
)

KEYS = ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04", "2023-12-31", "2024-01-01-05:00", "junk"]
TABLES = ["s/a", "s/b", "s/whole", "s/other"]
VERSIONS = st.sampled_from(["", "v1", "v2"])


def partitions_of(table: str) -> SearchStrategy[str]:
    return st.just("") if table == "s/whole" else st.sampled_from(KEYS)


@st.composite
def script(draw: DrawFn, number: int) -> list[Event]:
    """One run from its plan to its end, or to where it is now; ids and times come later."""
    run_id = f"run{number}"
    tables = draw(st.lists(st.sampled_from(TABLES), min_size=1, max_size=3, unique=True))
    days = draw(st.lists(st.sampled_from(KEYS[:3]), min_size=1, max_size=2, unique=True))
    targets = [(table, "" if table == "s/whole" else day) for table in tables for day in days]
    events: list[Event] = [
        Planned(0, 0, run_id, table, partition) for table, partition in dict.fromkeys(targets)
    ]
    checked = [table for table in tables if draw(st.booleans())]
    events += [CheckPlanned(0, 0, run_id, table, "c") for table in checked]
    events += [RunChanged(0, 0, run_id, status) for status in ("queued", "starting") if draw(st.booleans())]
    if draw(st.integers(0, 9)):
        events.append(RunChanged(0, 0, run_id, "started"))
        events += draw(st.lists(st.sampled_from(targets).flatmap(lambda it: work(run_id, *it)), max_size=8))
    if draw(st.integers(0, 3)):
        ends = st.sampled_from(["success", "success", "failure", "failure", "canceled"])
        events.append(RunChanged(0, 0, run_id, draw(ends)))
    return events


def work(run_id: str, table: str, partition: str) -> SearchStrategy[Event]:
    """Something that a run, or somebody outside of one, reports of a partition."""

    def materialized(version: str) -> Event:
        return Materialized(0, 0, run_id, table, partition, 0, version)

    return st.one_of(
        st.builds(materialized, VERSIONS),
        st.builds(
            lambda check, passed, severity, blocking: Evaluated(
                0,
                0,
                run_id,
                table,
                partition,
                check,
                passed,
                severity,
                blocking,
                "",
                None,
                "" if check == "theirs" else f"test.p.{check}",
            ),
            st.sampled_from(["c", "c", "w", "gone", "named", "whole", "whole", "theirs"]),
            st.booleans(),
            st.sampled_from(["ERROR", "ERROR", "WARN"]),
            st.integers(0, 3).map(bool),
        ),
        st.just(Skipped(0, 0, run_id, table, partition)),
        st.builds(lambda version: Failed(0, 0, run_id, table, partition, 0, version, "boom"), VERSIONS),
    )


@st.composite
def histories(draw: DrawFn, runs: int = 5) -> list[Event]:
    """Several runs, and events without a run, in one order."""
    scripts = [draw(script(number)) for number in range(draw(st.integers(1, runs)))]
    runless = st.sampled_from(["s/raw", *TABLES]).flatmap(
        lambda table: partitions_of(table).flatmap(lambda partition: work("", table, partition))
    )
    scripts.append(draw(st.lists(runless, max_size=4)))
    order = draw(st.permutations([number for number, events in enumerate(scripts) for _ in events]))
    places = [iter(events) for events in scripts]
    found: list[Event] = []
    for place, number in enumerate(order, 1):
        found.append(numbered(draw, next(places[number]), place * 2))
    return found


def numbered(draw: DrawFn, event: Event, event_id: int) -> Event:
    event = replace(event, id=event_id, at=1_704_400_000.0 + event_id)
    if isinstance(event, Materialized | Failed | Evaluated):
        return replace(event, as_of=draw(st.sampled_from([event_id, event_id - 3])))
    return event
