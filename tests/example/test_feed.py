"""The example's feeder: however the hours arrive, the raw tables end the same."""

import importlib.util
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

PATH = Path(__file__).parents[2] / "examples/nycflights/feed.py"
SPEC = importlib.util.spec_from_file_location("nycflights_feed", PATH)
feed = importlib.util.module_from_spec(SPEC)
sys.modules["nycflights_feed"] = feed
SPEC.loader.exec_module(feed)

NOON = datetime(2013, 1, 1, 17)
DAY = feed.hours_between(feed.BEGIN, feed.BEGIN + timedelta(days=1))
NOW = datetime(2020, 1, 1)
LATER = datetime(2020, 1, 2)
RAW = ("flights", "weather", "planes", "airlines", "airports")


@pytest.fixture(scope="module")
def loaded_csv_files(tmp_path_factory: pytest.TempPathFactory):
    return feed.Feeder(tmp_path_factory.mktemp("feeder") / "unused.duckdb")


@pytest.fixture
def feeder(loaded_csv_files, tmp_path: Path) -> Iterator:
    loaded_csv_files.database = tmp_path / "nycflights.duckdb"
    return loaded_csv_files


def fed(feeder, name: str, turns, dirty=()) -> Path:
    feeder.database = feeder.database.with_name(f"{name}.duckdb")
    feeder.load_static(NOW)
    for turn in turns:
        feeder.load(turn, NOW, dirty)
    return feeder.database


def query(database: Path, sql: str) -> list[tuple]:
    with duckdb.connect(str(database), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def raw_tables(database: Path) -> dict[str, list[tuple]]:
    """Every row but for the times of loading, in a fixed order."""
    tables = {table: query(database, f"from raw.{table} order by all") for table in RAW}
    rows = {name: [row[:-1] for row in table] for name, table in tables.items()}
    log = query(database, "select table_name, hour, rows from raw.load_log order by all")
    return {**rows, "load_log": log}


def test_a_burst_and_hour_by_hour_end_in_the_same_tables(feeder):
    burst = fed(feeder, "burst", feed.schedule(DAY, burst=24))
    paced = fed(feeder, "paced", feed.schedule(DAY, burst=6))

    assert raw_tables(burst) == raw_tables(paced)
    assert query(burst, "select count(*), min(time_hour), max(time_hour) from raw.flights") == [
        (842, datetime(2013, 1, 1, 10), datetime(2013, 1, 2, 4))
    ]
    assert query(burst, "select max(time_hour) from raw.weather") == [(datetime(2013, 1, 2, 5),)]
    log = query(burst, "select rows from raw.load_log where table_name = 'flights' order by hour limit 6")
    assert [rows for (rows,) in log] == [0, 0, 0, 0, 0, 6]


def test_late_and_random_hours_end_in_the_same_tables(feeder):
    in_order = fed(feeder, "in_order", feed.schedule(DAY))
    late = fed(feeder, "late", feed.schedule(DAY, burst=20, late={NOON: 3, DAY[-1]: 2}))
    shuffled = fed(feeder, "shuffled", feed.schedule(DAY, seed=7))

    assert raw_tables(late) == raw_tables(in_order)
    assert raw_tables(shuffled) == raw_tables(in_order)


def test_flights_may_come_late_or_in_random_order_and_weather_stays_an_hour_ahead():
    hours = DAY[:3]
    ahead = [(hours[0], hours[1]), (hours[2],), (DAY[3],)]

    late = feed.schedule(hours, late={hours[0]: 2, hours[2]: 1})
    shuffled = feed.schedule(hours, seed=0)

    assert [turn.flights for turn in late] == [(), (hours[1],), (hours[0],), (hours[2],)]
    assert [turn.weather for turn in late] == [*ahead, ()]
    assert [turn.weather for turn in shuffled] == ahead
    assert [turn.flights for turn in shuffled] == [(hours[2],), (hours[0],), (hours[1],)]


def test_a_skipped_hour_is_missing_until_it_is_repaired(feeder):
    database = fed(feeder, "skipped", feed.schedule(DAY, burst=24, skip=[NOON]))
    log = f"from raw.load_log where table_name = 'flights' and hour = timestamp '{NOON}'"
    assert query(database, log) == []

    feeder.repair(NOON, LATER)

    assert query(database, log) == [("flights", NOON, LATER, 56)]
    assert raw_tables(database) == raw_tables(fed(feeder, "true", feed.schedule(DAY, burst=24)))


def test_a_dirty_hour_has_no_carrier_until_it_is_repaired(feeder):
    database = fed(feeder, "dirty", feed.schedule(DAY, burst=24), dirty=[NOON])
    without_carrier = "select time_hour, count(*) from raw.flights where carrier is null group by 1"
    assert query(database, without_carrier) == [(NOON, 56)]

    feeder.repair(NOON, LATER)

    assert query(database, without_carrier) == []
    assert query(database, f"select distinct _loaded_at from raw.flights where time_hour = '{NOON}'") == [
        (LATER,)
    ]
    assert raw_tables(database) == raw_tables(fed(feeder, "true", feed.schedule(DAY, burst=24)))


def test_loading_an_hour_again_replaces_it(feeder):
    once = raw_tables(fed(feeder, "once", feed.schedule(DAY, burst=24)))
    twice = fed(feeder, "once", feed.schedule(DAY, burst=24))

    assert raw_tables(twice) == once


def test_a_load_that_fails_leaves_the_tables_as_they_were(feeder):
    database = fed(feeder, "failing", feed.schedule(DAY[:2]))
    before = raw_tables(database)
    with duckdb.connect(str(database)) as connection:
        connection.execute("alter table raw.load_log rename column loaded_at to other")
        connection.execute("alter table raw.load_log drop column other")

    with pytest.raises(duckdb.Error):
        feeder.load(feed.Turn(flights=(NOON,)), LATER)

    assert query(database, "select count(*) from raw.flights") == [(len(before["flights"]),)]


def test_the_command_goes_on_after_the_last_hour_and_repairs(tmp_path: Path):
    database = tmp_path / "nycflights.duckdb"

    def run(*arguments: str):
        return CliRunner().invoke(feed.main, [arguments[0], "--database", str(database), *arguments[1:]])

    first = run("run", "--to", "2013-01-01T17", "--pace", "0", "--skip", "2013-01-01T15")
    second = run("run", "--to", "2013-01-01T18", "--dirty", "2013-01-01T17")
    wrong = run("run", "--to", "2013-01-01T19", "--skip", "2013-01-01T05")
    repairs = [run("repair", hour).output for hour in ("2013-01-01T15", "2013-01-01T17")]

    assert first.output.splitlines()[-1] == "fed flights 2013-01-01T16 (37 rows), weather 2013-01-01T17"
    assert second.output == "fed flights 2013-01-01T17 (56 rows), weather 2013-01-01T18\n"
    assert (wrong.exit_code, wrong.output.splitlines()[-1]) == (
        2,
        "Error: 2013-01-01T05 is not one of the hours fed, 2013-01-01T18..2013-01-01T18",
    )
    assert repairs == [
        "repaired flights 2013-01-01T15 (39 rows)\n",
        "repaired flights 2013-01-01T17 (56 rows)\n",
    ]
    assert query(database, "select count(*) from raw.flights where carrier is null") == [(0,)]
