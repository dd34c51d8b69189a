"""What an author may write under `meta.t2`: the schema that values are checked against.

`docs/configuration.md` is generated from it (`reference.py`), so no key is accepted that is not documented.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from t2.project.model import Cron, Grain

Path = tuple[str, ...]
Report = Callable[[Path, str, "str | None"], None]

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


@dataclass(frozen=True)
class Key:
    """One key: a value (`parse`), a mapping with fixed keys (`keys`) or one with free names.

    Under each free name there is a mapping (`each`) or a value (`value`).

    `parse` returns the value that T2 uses and raises ValueError for any other; `expects` says what is right,
    `words` lists the valid values where they are few.
    """

    doc: str
    expects: str = "a mapping"
    parse: Callable[[Any], Any] | None = None
    default: str = ""
    keys: Mapping[str, Key] = field(default_factory=dict)
    each: Mapping[str, Key] = field(default_factory=dict)
    value: Key | None = None
    placeholder: str = ""
    words: Callable[[], Iterable[str]] = tuple


def check(value: Any, keys: Mapping[str, Key], report: Report, path: Path = ()) -> dict[str, Any]:
    """Return the parsed values of a mapping; whatever is wrong is reported and left out."""
    if not isinstance(value, Mapping):
        report(path, f"{_dotted(path)} must be a mapping, not {value!r}", None)
        return {}
    checked: dict[str, Any] = {}
    for name, inner in value.items():
        if name not in keys:
            report(
                (*path, str(name)), f"unknown key {_dotted((*path, str(name)))}", _hint(str(name), path, keys)
            )
        elif inner is not None:
            _check_key(inner, keys[name], report, (*path, name), checked)
    return checked


def _check_key(value: Any, key: Key, report: Report, path: Path, into: dict[str, Any]) -> None:
    if key.keys:
        into[path[-1]] = check(value, key.keys, report, path)
    elif key.each:
        named = {name: Key("", keys=key.each) for name in value} if isinstance(value, Mapping) else {}
        into[path[-1]] = check(value, named, report, path)
    elif key.value:
        named = dict.fromkeys(value, key.value) if isinstance(value, Mapping) else {}
        into[path[-1]] = check(value, named, report, path)
    elif key.parse is not None:
        try:
            into[path[-1]] = key.parse(value)
        except (ValueError, TypeError, OverflowError):
            report(path, f"{_dotted(path)} is {value!r}; expected {key.expects}", _meant(value, key))


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """Return the valid name that a wrong one was probably meant to be."""
    return next(iter(difflib.get_close_matches(name, list(valid), n=1, cutoff=0.6)), None)


def _meant(value: Any, key: Key) -> str | None:
    close = nearest(value, key.words()) if isinstance(value, str) else None
    return f"did you mean {close}?" if close else None


def _hint(name: str, path: Path, keys: Mapping[str, Key]) -> str:
    close = nearest(name, keys)
    if close:
        return f"did you mean {close}?"
    if not path and name in DBT_KEYS:
        return f"{name} is dbt's own: write it under config, beside meta"
    return f"valid keys: {', '.join(keys)}"


def _dotted(path: Path) -> str:
    return ".".join(("meta", "t2", *path))


def duration(value: str) -> int:
    """Return the seconds of `30s`, `5m`, `2h` or `7d`."""
    match = re.fullmatch(r"(\d+)([smhd])", value)
    if not match:
        raise ValueError(value)
    return int(match[1]) * SECONDS[match[2]]


def _signed_duration(value: str) -> int:
    return -duration(value[1:]) if value.startswith("-") else duration(value)


def _lookback(value: Any) -> int | timedelta:
    """Return a number of partitions, or a duration."""
    return timedelta(seconds=duration(value)) if isinstance(value, str) else _at_least(0)(value)


def _positive_duration(value: str) -> int:
    return _at_least(1)(duration(value))


def wall_time(value: Any) -> datetime:
    """Return a date, datetime or ISO text as a datetime; aware only if it has an offset."""
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime.combine(value, time())
    text = str(value).strip()
    return datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)


def grain(value: Any) -> Grain:
    """Return the grain with a name; ValueError for any other."""
    return Grain(value)


def zone(value: Any) -> str:
    """Return the name of an IANA time zone; ValueError if there is none."""
    try:
        return ZoneInfo(value).key
    except (KeyError, OSError) as error:
        raise ValueError(value) from error


def _at_least(least: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(value)
        return int(value)

    return parse


def _automation(value: Any) -> str | Cron:
    if value in ("eager", "manual"):
        return str(value)
    if not isinstance(value, Mapping) or not {"cron"} <= value.keys() <= {"cron", "tz"}:
        raise ValueError(value)
    return Cron(cron(value["cron"]), zone(value["tz"]) if "tz" in value else "")


def cron(value: Any) -> str:
    """Return a cron expression of five fields; ValueError for any other text."""
    from cronsim import CronSim, CronSimError

    if not isinstance(value, str) or len(value.split()) != 5:
        raise ValueError(value)
    try:
        next(CronSim(value, datetime(2024, 1, 1)))
    except (CronSimError, StopIteration) as error:
        raise ValueError(value) from error
    return value


def _one_of(*words: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in words:
            raise ValueError(value)
        return str(value)

    return parse


def _time_of_day(value: Any) -> time:
    if isinstance(value, int) and not isinstance(value, bool):
        return time(*divmod(value, 60))  # YAML reads 12:30 without quotes as 750
    if not re.fullmatch(r"\d\d:\d\d", str(value)):
        raise ValueError(value)
    return time.fromisoformat(str(value))


def _blocks(value: Any) -> str | tuple[str, ...]:
    if value in ("all", "none"):
        return str(value)
    if not isinstance(value, list) or not value:
        raise ValueError(value)
    return tuple(_text(name) for name in value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(value)
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(value)
    return value


def _word(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"\S+", value):
        raise ValueError(value)
    return value


def _owners(value: Any) -> tuple[str, ...]:
    return tuple(owner(_text(item)) for item in (value if isinstance(value, list) else [value]))


def owner(value: str) -> str:
    """Return an owner as Dagster takes it: an email address, or `team:` and a name."""
    value = value.strip()
    return value if EMAIL.fullmatch(value) or value.startswith("team:") else f"team:{value}"


GRAINS = "hour, day, week, month or year"
DURATION = "a duration such as 30s, 5m, 2h or 7d"

TIMEZONE = Key(
    "The clock that days and longer partitions are cut by. Hours are hours of UTC whatever this says.",
    "an IANA time zone such as Europe/Berlin",
    zone,
    "UTC",
    words=available_timezones,
)
BEGIN = Key(
    "The first partition, as wall time in the table's time zone, floored to the grain.",
    "a date or time such as 2013-01-01",
    wall_time,
    "`config.begin`",
)
END = Key(
    "Where the partitions stop, as wall time in the table's time zone; only those over by then exist.",
    "a date or time such as 2014-01-01",
    wall_time,
    "never",
)
OWNER = Key(
    "Who is told and named when the table does not update: an email address or a team's name, or a list.",
    "a name, an email address or a list of them",
    _owners,
    "the owner of dbt's `group`",
)

TABLE: Mapping[str, Key] = {
    "automation": Key(
        "`eager` builds a partition as soon as its inputs are ready; `manual` only when a person asks. "
        "`cron` builds after each of its ticks, when the inputs are ready: partitions whose window is over "
        "by then or whose inputs changed, a table without partitions each time. Missed ticks count once. "
        "`tz` is the clock of the ticks, by default the table's `timezone`.",
        'eager, manual or `{cron: "0 6 * * *", tz: Europe/Berlin}`',
        _automation,
        "eager",
        words=lambda: ("eager", "manual"),
    ),
    "upstream": Key(
        "How far back the table reads each of its parents. A name is that of a model, seed or snapshot, "
        "`source_name.table_name`, a view or ephemeral model in between (it then holds for all that is "
        "under it), or the table's own name if it reads its own earlier partitions.",
        each={
            "lookback": Key(
                "How many own partitions before the one that is built are read too: 6 on a daily table "
                "reads seven days; or how much time before it.",
                "a whole number of partitions, 0 or more, or a duration such as 90m or 3d",
                _lookback,
                "0",
            ),
            "window": Key(
                "`overlap`: the partitions that overlap the one that is built, and the lookback. `latest`: "
                "only the newest one that has landed by its end. `all`: whatever there is.",
                "overlap, latest or all",
                _one_of("overlap", "latest", "all"),
                "overlap",
                words=lambda: ("overlap", "latest", "all"),
            ),
            "shift": Key(
                "Moves the window: `1h` reads what is an hour later by the parent's event time, for parents "
                "that keep another clock.",
                "a duration such as 1h, or -1h",
                _signed_duration,
                "0s",
            ),
            "required": Key(
                "`false`: when `wait` is over, partitions of the parent that were never built are done "
                "without.",
                "true or false",
                _flag,
                "true",
            ),
            "wait": Key(
                "How long after the end of the partition that is built a parent is waited for that is not "
                "required.",
                DURATION,
                duration,
                "0s",
            ),
            "on_update": Key(
                "Whether new data in the window is a reason to build again.",
                "rerun or ignore",
                _one_of("rerun", "ignore"),
                "`rerun`; `ignore` where partitions read a parent without partitions, or with another "
                "`window` than `overlap`",
                words=lambda: ("rerun", "ignore"),
            ),
        },
        placeholder="<name>",
    ),
    "merge": Key(
        "How `incremental_strategy: merge` sets a column of a row that is there already.",
        value=Key(
            "`least` and `greatest`: the smaller or greater of both values, a null never wins. `replace`: "
            "the new value, unless the table's row has a later event time. `keep`: the table's value.",
            "least, greatest, keep or replace",
            _one_of("least", "greatest", "keep", "replace"),
            "`replace`, or what `merge_update_columns` and `merge_exclude_columns` say",
            words=lambda: ("least", "greatest", "keep", "replace"),
        ),
        placeholder="<column>",
    ),
    "bigquery": Key(
        "What concerns BigQuery alone.",
        keys={
            "write": Key(
                "How partitions are replaced. `copy`: by a copy job each, free and outside of BigQuery's "
                "limits for statements, atomic for each partition of BigQuery. `merge`: by one statement for "
                "all of them; one build of the table can write at a time.",
                "copy or merge",
                _one_of("copy", "merge"),
                "`copy` where a partition of T2 is one of BigQuery, else `merge`",
                words=lambda: ("copy", "merge"),
            )
        },
    ),
    "backfill": Key(
        "How much of a backfill is done at once.",
        keys={
            "partitions_per_run": Key(
                "The most partitions that one run builds.", "a whole number, 1 or more", _at_least(1), "1"
            ),
            "concurrency": Key(
                "How many runs of the table may be active at once. Only tables with "
                "`materialized: partitioned` can have more than one.",
                "a whole number, 1 or more",
                _at_least(1),
                "4 for `materialized: partitioned`, else 1; 1 on BigQuery for what is written by statements",
            ),
        },
    ),
    "isolation": Key(
        "`run`: tables that are connected and ready for the same partition share a run, and with it a "
        "process. `table`: the table has runs of its own.",
        "run or table",
        _one_of("run", "table"),
        "run",
        words=lambda: ("run", "table"),
    ),
    "pool": Key(
        "The Dagster pool in which the table takes a slot while it is built and tested. All tables that name "
        "the same pool share its slots, those of other projects too.",
        "a name without spaces",
        _word,
        "the pool of the warehouse, such as `duckdb_dev`: the adapter and the target",
    ),
    "retries": Key(
        "What happens after a failed attempt, as long as inputs and code are the same.",
        keys={
            "attempts": Key("How often it is tried again.", "a whole number, 0 or more", _at_least(0), "1"),
            "wait": Key("The wait before the first retry; it doubles with each.", DURATION, duration, "30s"),
        },
    ),
    "late_data": Key(
        "What happens when a partition that was read changes afterwards.",
        keys={
            "within": Key(
                "Only changes that land so long after the end of the partition that changes count.",
                DURATION,
                duration,
                "any time",
            ),
            "action": Key(
                "`rerun`: what read it is built again. `ignore`: it stays as it is.",
                "rerun or ignore",
                _one_of("rerun", "ignore"),
                "rerun",
                words=lambda: ("rerun", "ignore"),
            ),
        },
    ),
    "timezone": TIMEZONE,
    "batch_size": Key(
        "The grain, where dbt's own `batch_size` cannot say it. It wins over dbt's.",
        GRAINS,
        grain,
        "`config.batch_size`",
        words=lambda: (size.value for size in Grain),
    ),
    "begin": BEGIN,
    "end": END,
    "open": Key(
        "The partition whose window is not over yet is built, too, and again whenever something of its "
        "window lands; once more when it is over.",
        "true or false",
        _flag,
        "false",
    ),
    "owner": OWNER,
}

SOURCE: Mapping[str, Key] = {
    "batch_size": Key("The grain of the source's partitions. Needs `event_time` and `begin`.", GRAINS, grain),
    "begin": Key(BEGIN.doc, BEGIN.expects, BEGIN.parse),
    "end": END,
    "timezone": TIMEZONE,
    "static": Key(
        "The source has no partitions on purpose: partitioned tables read all of it.",
        "true or false",
        _flag,
        "false",
    ),
    "owner": Key(OWNER.doc, OWNER.expects, OWNER.parse, "nobody"),
    "monitor": Key(
        "How T2 sees which partitions have landed.",
        keys={
            "enabled": Key(
                "`false`: landed partitions are only reported from outside.", "true or false", _flag, "true"
            ),
            "every": Key("The time between two looks.", DURATION, _positive_duration, "30s"),
            "grace": Key(
                "How long after its end a partition may still be written before it counts as landed.",
                DURATION,
                duration,
                "0s",
            ),
            "sql": Key(
                "A query with the columns `partition` and, optionally, `fingerprint`: one row for each "
                "partition that has landed.",
                "a query",
                _text,
                "the newest event time decides",
            ),
        },
    ),
}

TEST: Mapping[str, Key] = {
    "scope": Key(
        "What the test looks at: the partitions of a run, the whole table, or, for `unique`, all rows of the "
        "table whose `keys` occur in the partitions of a run.",
        "partition, table or keys",
        _one_of("partition", "table", "keys"),
        "`partition` for generic tests of partitioned tables and for singular tests that call `t2.window`",
        words=lambda: ("partition", "table", "keys"),
    ),
    "blocks": Key(
        "What a failure of severity `error` holds back. A name is that of a table that reads the tested "
        "one, directly or through others; that table waits, and with it all that reads it. A view or an "
        "ephemeral model stands for the tables that read it.",
        "all, none or a list of names",
        _blocks,
        "all",
        words=lambda: ("all", "none"),
    ),
    "when": Key(
        "`landing`: the test is part of each run that builds the table. `daily`: it runs once a day and, "
        "while it holds somebody back, with each landing too.",
        "landing or daily",
        _one_of("landing", "daily"),
        "landing",
        words=lambda: ("landing", "daily"),
    ),
    "at": Key(
        "When a `daily` test runs, by the clock of the table's `timezone`.",
        "a time of day such as 06:00",
        _time_of_day,
        "06:00",
    ),
    "screen": Key(
        "Whether one query may prove the test together with the table's others, before dbt runs it alone.",
        "true or false",
        _flag,
        "true",
    ),
}

DBT_KEYS = frozenset(
    (
        *("alias", "contract", "event_time", "full_refresh", "group", "incremental_strategy", "lookback"),
        *("materialized", "on_schema_change", "partition_by", "post_hook", "pre_hook", "schema", "severity"),
        *("tags", "unique_key", "where"),
    )
)
