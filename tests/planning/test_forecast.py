"""The coming hours, simulated: when what is requested, and when it lands."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from tests.planning.projects import blank, by, land, project, source, table, utc

from t2.planning.forecast import Forecast, Habits, forecast
from t2.planning.state import Active, Pause
from t2.project.model import Cron, Grain, Upstream

HOURS, DAYS = by(Grain.HOUR), by(Grain.DAY)
NOW = utc(2024, 3, 7, 0, 30)


def landings(found: Forecast, key: str) -> list[tuple[int, datetime]]:
    return [(index, datetime.fromtimestamp(at, timezone.utc)) for index, at in found.landings.get(key, ())]


def test_a_day_lands_after_its_last_hour_did() -> None:
    made = project(
        source("s", HOURS),
        table("hourly", HOURS, "raw/s"),
        table("daily", DAYS, "m/hourly"),
        table("report", None, "m/daily", automation=Cron("0 6 * * *")),
    )
    state = blank(made, NOW)
    land(state, "raw/s")
    for key in ("m/hourly", "m/daily", "m/report"):
        land(state, key, at=NOW)
    habits = Habits(
        build={"m/hourly": 20, "m/daily": 60, "m/report": 5}, start=2, lateness={"raw/s": 600}, slots=2
    )
    found = forecast(made, state, NOW, NOW + timedelta(hours=36), habits)
    hours = landings(found, "m/hourly")
    assert [index for index, _ in hours] == list(range(72, 108))
    assert hours[0][1] == utc(2024, 3, 7, 1, 10) + timedelta(seconds=22)
    # The last hour of the day ends at midnight, is ten minutes late, and takes 22 s; then the day takes 62 s.
    assert landings(found, "m/daily") == [(3, utc(2024, 3, 8, 0, 10) + timedelta(seconds=84))]
    assert [at.replace(second=0) for _, at in landings(found, "m/report")] == [
        utc(2024, 3, 7, 6),
        utc(2024, 3, 8, 6),
    ]
    assert len(found.requests) == 36 + 1 + 2
    assert all(one.at <= one.starts <= one.ends for one in found.requests)


def test_what_waits_for_a_slot_lands_later() -> None:
    made = project(source("s", DAYS), *(table(f"t{n}", DAYS, "raw/s", isolation="table") for n in range(3)))
    state = blank(made, NOW)
    land(state, "raw/s", 2)
    habits = Habits(other=100, start=0, slots=1)
    found = forecast(made, state, NOW, NOW + timedelta(hours=1), habits)
    ends = sorted(at for n in range(3) for _, at in landings(found, f"m/t{n}"))
    assert [int((end - NOW).total_seconds()) for end in ends] == [100, 200, 300]


def test_what_runs_ends_and_what_is_paused_waits() -> None:
    made = project(
        source("s", DAYS),
        table("a", DAYS, "raw/s", Upstream("m/a", 1), size=3),
        table("b", DAYS, "raw/s"),
    )
    state = blank(made, NOW)
    land(state, "raw/s")
    state.tables["m/a"].active[0] = Active.RUNNING
    state.tables["m/a"].active_runs = 1
    state.paused = {"m/b": Pause(NOW.timestamp() + 1800, "why", "me", 0)}
    found = forecast(made, state, NOW, NOW + timedelta(hours=1), Habits(other=60, start=0))
    assert [index for index, _ in landings(found, "m/a")] == [0, 1, 2]
    assert min(at for _, at in landings(found, "m/b")) > NOW + timedelta(minutes=30)
    assert found.landings.keys() == {"m/a", "m/b"}


def test_a_source_of_which_no_habit_is_known_never_lands() -> None:
    made = project(source("s", HOURS), table("a", HOURS, "raw/s"))
    state = blank(made, NOW)
    found = forecast(made, state, NOW, NOW + timedelta(hours=5), Habits())
    assert (found.requests, found.landings) == ((), {})


def test_nothing_of_the_past_is_changed() -> None:
    made = project(source("s", HOURS), table("a", HOURS, "raw/s"))
    state = blank(made, NOW)
    land(state, "raw/s")
    before = state.tables["m/a"].landed_id.copy()
    forecast(made, state, NOW, NOW + timedelta(hours=5), Habits(lateness={"raw/s": 0}))
    assert (state.tables["m/a"].landed_id == before).all()
    assert not state.tables["m/a"].active.any()
