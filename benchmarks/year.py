"""The project of the backfill benchmark: hours, and days and weeks of them, for both sides."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

from benchmarks.synthetic import Flavour

MONDAY = date(2024, 1, 1)
STATIONS = 20
TIME = "%Y-%m-%d %H:%M:%S"
# By table: the grain, its column, what it reads by which column, partitions a run, runs at once.
TABLES = {
    "hourly": ("hour", "event_hour", "events", "moment", 24, 4),
    "daily": ("day", "event_day", "hourly", "event_hour", 30, 4),
    "weekly": ("week", "event_week", "daily", "event_day", 4, 4),
}


@dataclass(frozen=True)
class Calendar:
    """So many whole weeks of events from Monday 2024-01-01 on."""

    weeks: int

    @property
    def end(self) -> date:
        """The day after the last."""
        return MONDAY + timedelta(weeks=self.weeks)

    @property
    def partitions(self) -> dict[str, int]:
        """How many partitions each table has."""
        return {"hourly": self.weeks * 7 * 24, "daily": self.weeks * 7, "weekly": self.weeks}

    @property
    def runs(self) -> dict[str, int]:
        """How many runs build all of each table, one statement a run."""
        return {name: math.ceil(count / TABLES[name][4]) for name, count in self.partitions.items()}

    @property
    def hours(self) -> list[datetime]:
        """The starts of all hours."""
        begin = datetime(MONDAY.year, MONDAY.month, MONDAY.day)
        return [begin + timedelta(hours=number) for number in range(self.partitions["hourly"])]


def write(calendar: Calendar, flavour: Flavour, root: Path) -> None:
    """Write the dbt project."""
    path = root.resolve() / "warehouse.duckdb"
    files = {
        "dbt_project.yml": "name: year\nprofile: year\nflags: {send_anonymous_usage_stats: false}\n",
        "profiles.yml": "year: {target: dev, outputs: {dev: "
        f"{{type: duckdb, path: '{path}', schema: analytics, threads: 2}}}}}}\n",
        "models/sources.yml": _sources(calendar),
        **{f"models/{name}.sql": _sql(name, calendar, flavour) for name in TABLES},
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def load(calendar: Calendar, root: Path) -> None:
    """Fill the raw table, an event a station and hour, and forget all that was built from it."""
    import duckdb

    for file in root.glob("warehouse.duckdb*"):
        file.unlink()
    with duckdb.connect(str(root / "warehouse.duckdb")) as connection:
        connection.execute("create schema raw")
        connection.execute(
            "create table raw.events as select s.i as station, 1 as amount, "
            "$1::timestamp + to_hours(h.i::int) + to_minutes((s.i * 60 // $3)::int) as moment "
            "from range($2) h(i), range($3) s(i)",
            [calendar.hours[0], len(calendar.hours), STATIONS],
        )


def _sources(calendar: Calendar) -> str:
    t2 = f"{{batch_size: hour, begin: '{MONDAY}', end: '{calendar.end}', monitor: {{enabled: false}}}}"
    config = f"{{event_time: moment, meta: {{t2: {t2}}}}}"
    return f"sources: [{{name: raw, schema: raw, tables: [{{name: events, config: {config}}}]}}]\n"


def _sql(name: str, calendar: Calendar, flavour: Flavour) -> str:
    grain, column, upstream, read, _, _ = TABLES[name]
    select = f"select date_trunc('{grain}', {read}) as {column}, station, sum(amount) as amount\n"
    return (
        _config(name, calendar, flavour) + select + f"from {_from(upstream, read, flavour)}\ngroup by 1, 2\n"
    )


def _config(name: str, calendar: Calendar, flavour: Flavour) -> str:
    grain, column, _, _, size, concurrency = TABLES[name]
    if flavour == "stock":
        return (
            "{{ config(materialized='incremental', incremental_strategy='delete+insert', "
            f"unique_key='{column}') }}}}\n"
        )
    backfill = {"partitions_per_run": size, "concurrency": concurrency}
    return (
        f"{{{{ config(materialized='partitioned', event_time='{column}', batch_size='{grain}', "
        f"begin='{MONDAY}', meta={{'t2': {{'end': '{calendar.end}', 'backfill': {backfill}}}}}) }}}}\n"
    )


def _from(upstream: str, column: str, flavour: Flavour) -> str:
    source = upstream == "events"
    if flavour == "t2":
        return "{{ t2.window('raw', 'events') }}" if source else f"{{{{ t2.window('{upstream}') }}}}"
    relation = "source('raw', 'events')" if source else f"ref('{upstream}')"
    window = f"{column} >= '{{{{ var(\"start\") }}}}' and {column} < '{{{{ var(\"end\") }}}}'"
    return f"{{{{ {relation} }}}} where {window}"
