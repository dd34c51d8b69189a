"""The flights example with all processes: whatever happens, its tables end as one plain dbt build makes them.

The tests feed 4 days, or T2_E2E_DAYS of them (`make test-demo`: 14).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import dagster as dg
import pytest
from tests.end_to_end.flights import DBT, T2, Flights, Part, differences, feed, make_template

DAYS = int(os.environ.get("T2_E2E_DAYS", "4"))
END = feed.BEGIN + timedelta(days=DAYS)
HOURS = feed.hours_between(feed.BEGIN, END)
ALL_AT_ONCE = feed.schedule(HOURS, burst=len(HOURS))
BURST = len(HOURS) - 16  # these at once, then one at a time
PACE_SECONDS = 0.4
# Of what is killed when; another one is another test.
SEED = int(os.environ.get("T2_E2E_SEED", "2013"))

Make = Callable[[str], Flights]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    folder = tmp_path_factory.mktemp("flights")
    made: list[Flights] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DAGSTER_HOME", raising=False)
        patch.delenv("NYCFLIGHTS_DATABASE", raising=False)
        template = make_template(folder / "template")
        feeder = feed.Feeder(folder / "unused.duckdb")

        def copy(name: str) -> Flights:
            for earlier in made:
                if earlier.dev:
                    earlier.dev.stop()
                    earlier.dev = None
            made.append(Flights(template, folder / name, feeder, END))
            return made[-1]

        yield copy
        for flights in made:
            if flights.dev:
                flights.dev.stop()


@pytest.fixture(scope="module")
def clean(make: Make) -> dict[str, list[Any]]:
    """The tables as dbt alone builds them from all rows."""
    flights = make("without_t2")
    for turn in ALL_AT_ONCE:
        flights.load(turn)
    times = ("--event-time-start", "2013-01-01", "--event-time-end", f"{END:%Y-%m-%d}")
    flights.run("-c", DBT, "--quiet", "build", "--full-refresh", *times)
    tables = flights.tables()
    assert len(tables["raw/flights"]) == len(tables["analytics/fct_flights"]) > 800 * DAYS
    return tables


def test_tables_of_hours_in_order_equal_a_full_refresh_build(make: Make, clean: dict[str, list[Any]]) -> None:
    flights = make("in_order")
    first, *others = feed.schedule(HOURS, burst=BURST)
    flights.load(first)
    flights.start()
    for turn in others:
        flights.load(turn)
        time.sleep(PACE_SECONDS)
    flights.wait(flights.everything())
    assert differences(flights.tables(), clean) == {}
    assert built_in_vain(flights) == []


def test_tables_of_late_hours_out_of_order_equal_a_full_refresh_build(
    make: Make, clean: dict[str, list[Any]]
) -> None:
    """One hour comes half and is completed after its day was built; the last hours come in any order."""
    flights = make("out_of_order")
    half, late = datetime(2013, 1, 2, 18), {HOURS[-8]: 5, HOURS[-20]: 9, HOURS[30]: 12}
    first, *others = feed.schedule(HOURS, burst=BURST, seed=7, late=late)
    flights.load(first)
    flights.lose_rows(half)
    flights.start()
    for turn in others:
        flights.load(turn)
        time.sleep(PACE_SECONDS)
    flights.wait(flights.everything())
    assert {"analytics/fct_flights", "analytics/fct_carriers_rolling_7d", "raw/flights"} <= set(
        differences(flights.tables(), clean)
    )

    flights.feeder.repair(half, feed.utc_now())

    until_seen(flights, Part("raw/flights", "2013-01-02-18:00"))
    flights.wait(flights.everything())
    assert differences(flights.tables(), clean) == {}
    assert built_in_vain(flights) == []


def until_seen(flights: Flights, source: Part) -> None:
    """Wait until T2 has noticed that an hour was loaded once more."""
    before = flights.ledger.landing(source.key, source.label)
    assert before
    deadline = time.monotonic() + 30
    while True:
        flights.plan()
        now = flights.ledger.landing(source.key, source.label)
        if now and now.event_id > before.event_id:
            return
        assert time.monotonic() < deadline, f"{source.label} was loaded again, and nobody noticed"
        time.sleep(0.2)


def test_a_dirty_hour_holds_back_exactly_what_reads_it(make: Make, clean: dict[str, list[Any]]) -> None:
    flights = make("dirty")
    hour = datetime(2013, 1, 3, 18)
    for turn in ALL_AT_ONCE:
        flights.load(turn, dirty=[hour])
    [bad] = [part for part in flights.parts("analytics/stg_flights") if part.start == hour]
    held = flights.held_back_by(bad)
    others = [part for part in flights.everything() if part not in held]
    assert {part.label for part in held if part.key == "analytics/fct_flights"} == {"2013-01-03"}
    assert {part.label for part in held if part.key == "analytics/fct_planes_active_daily"} == {
        "2013-01-03",
        "2013-01-04",
    }

    flights.start()
    flights.wait(others)

    outcomes = flights.outcomes(held)
    assert outcomes.pop(bad) == "blocked"
    assert set(outcomes.values()) == {"waiting"}
    said = flights.run("-c", T2, "why", "fct_flights_daily", "2013-01-03", code=1)
    assert "not_null_stg_flights_carrier" in said
    assert "owner: flight-operations@example.com" in said

    flights.run("feed.py", "repair", f"{hour:%Y-%m-%dT%H}")

    flights.wait(flights.everything())
    assert differences(flights.tables(), clean) == {}
    assert built_in_vain(flights) == []


def test_killing_any_process_at_random_points_changes_nothing(
    make: Make, clean: dict[str, list[Any]]
) -> None:
    flights = make("killed")
    chance = random.Random(SEED)
    first, *others = feed.schedule(HOURS, burst=BURST)
    roles = ["supervisor", "worker", "daemon", "code-server", "warehouse", "run", "run"]
    chance.shuffle(roles)
    kills = dict(zip(sorted(chance.sample(range(1, len(others)), len(roles))), roles, strict=True))
    flights.load(first)
    dev = flights.start()
    killed_at = []
    for number, turn in enumerate(others):
        flights.load(turn)
        time.sleep(chance.uniform(0.5, 1.5))
        if role := kills.get(number):
            killed_at.append(dev.kill(role))
    flights.wait(flights.everything())

    assert differences(flights.tables(), clean) == {}
    assert flights.active() == {}
    with dg.DagsterInstance.from_config(str(flights.path / ".t2")) as instance:
        runs = instance.get_run_records()
    assert [run.dagster_run.run_id for run in runs if not run.dagster_run.is_finished] == []
    unhurt = [
        run.dagster_run.run_id
        for run in runs
        if not run.dagster_run.is_success
        and not any(run.create_timestamp.timestamp() < at < (run.end_time or 0) for at in killed_at)
    ]
    assert unhurt == [], "runs failed that were not in flight at a kill"
    assert built_in_vain(flights) == []


def built_in_vain(flights: Flights) -> list[str]:
    """Return the partitions that were built again although no input had changed and no kill had hit a run."""
    landings: dict[Part, list[tuple[int, int, str]]] = {}
    with dg.DagsterInstance.from_config(str(flights.path / ".t2")) as instance:
        succeeded = {run.run_id for run in instance.get_runs() if run.is_success}
        for key in flights.nodes:
            landings |= landings_of(flights, instance, key)
    wrong = []
    for part, found in landings.items():
        if part.key in flights.project.sources:
            continue
        inputs = [number for one in flights.reads(part) for number, _, _ in landings.get(one, [])]
        for (_, as_of, run), (number, _, again) in pairwise(found):
            changed = any(as_of < other < number for other in inputs)
            if not changed and {run, again} <= succeeded:
                wrong.append(f"{part.key} {part.label}: by {run} and again by {again}")
    return wrong


def landings_of(
    flights: Flights, instance: dg.DagsterInstance, key: str
) -> dict[Part, list[tuple[int, int, str]]]:
    """Return (event id, as of, run id) of each time that a partition was materialized, oldest first."""
    parts = {part.label: part for part in flights.parts(key)}
    found: dict[Part, list[tuple[int, int, str]]] = {}
    records = instance.fetch_materializations(dg.AssetKey(key.split("/")), limit=10_000, ascending=True)
    for record in records.records:
        event = record.asset_materialization
        assert event
        if (event.partition or "") in parts:
            as_of = event.metadata.get("t2/as_of")
            number = int(as_of.value) if as_of else record.storage_id
            found.setdefault(parts[event.partition or ""], []).append(
                (record.storage_id, number, record.run_id)
            )
    return found
