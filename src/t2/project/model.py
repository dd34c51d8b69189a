"""What the authors of a project declared, as frozen values.

Nothing here knows Dagster, dbt's Python, a clock or a database. `manifest.py` makes these values
from dbt's manifest; everything else in T2 reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from enum import Enum
from functools import cached_property
from typing import Literal


class Grain(str, Enum):
    """The length of a partition's window."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"

    @property
    def rank(self) -> int:
        """0 for hour to 4 for year: a higher rank is coarser."""
        return list(Grain).index(self)


def floor(grain: Grain, wall: datetime) -> datetime:
    """Return the start of the window that holds a naive wall time; weeks start on Monday."""
    if grain is Grain.HOUR:
        return wall.replace(minute=0, second=0, microsecond=0)
    # A midnight that comes twice is the first one; `fold` is no part of a key.
    day = wall.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if grain is Grain.WEEK:
        return day - timedelta(days=day.weekday())
    if grain is Grain.MONTH:
        return day.replace(day=1)
    return day.replace(month=1, day=1) if grain is Grain.YEAR else day


@dataclass(frozen=True)
class Partitioning:
    """How a table is cut into windows of event time.

    `begin` is a naive wall time in `timezone`, floored to the grain (weeks start on Monday); `end`, if there
    is one, is where the partitions stop: the start of the first that is not there. An `open` table also has
    the partition whose window is not over yet.
    Hours are always hours of UTC: a local wall clock has an hour that happens twice a year.
    """

    grain: Grain
    begin: datetime
    event_time: str
    timezone: str = "UTC"
    end: datetime | None = None
    open: bool = False


@dataclass(frozen=True)
class Upstream:
    """The upstream window of one edge: which partitions of `key` one partition reads.

    A partition with the window [start, end) reads the partitions of `key` that overlap
    [start - lookback own windows - back_seconds, end), all of it moved by `shift_seconds`. For a self
    reference the window ends at `start`. With `window` "latest" it reads the newest partition of `key` that
    has landed and ends by `end`, with "all" whatever there is.
    `through` names the views and ephemeral models between, nearest first.

    What is not `required` is waited for until `wait_seconds` after `end`, and no longer. `on_update`: whether
    what changes in the window makes the reader change; None for the default (`planning.inputs.follows`).
    """

    key: str
    lookback: int = 0
    through: tuple[str, ...] = ()
    back_seconds: int = 0
    shift_seconds: int = 0
    window: Literal["overlap", "latest", "all"] = "overlap"
    required: bool = True
    wait_seconds: int = 0
    on_update: Literal["rerun", "ignore"] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether each partition reads the very same window."""
        moved = self.lookback or self.back_seconds or self.shift_seconds
        return not moved and self.window == "overlap"


@dataclass(frozen=True)
class Column:
    """A column as the project documents it."""

    name: str
    data_type: str | None = None
    description: str = ""


@dataclass(frozen=True)
class Cron:
    """The ticks of a cron expression (five fields) by the clock of an IANA time zone."""

    expression: str
    timezone: str = "UTC"


@dataclass(frozen=True)
class Daily:
    """Once a day, at a wall time of an IANA time zone."""

    at: time
    timezone: str = "UTC"


@dataclass(frozen=True)
class Test:
    """One dbt test on a table or source: a Dagster asset check.

    `kind` is the generic test's name (`not_null`, `dbt_utils.equal_rowcount`) or `singular`.
    `per_partition` tests look at the partitions of a run only; others at the whole table.
    `row_wise` tests that find no failing row in several partitions at once prove each of them.
    `blocks` are the keys of the tables that a failure of severity error holds back; None: all that read it.
    Tests with `daily` are not part of the runs that build the table. `screen`: a screen may prove it.
    `compared_by` is the SQL of a column: the test looks at all rows of the table whose value of it occurs in
    the partitions.
    """

    __test__ = False  # not a pytest class

    unique_id: str
    name: str
    key: str
    kind: str
    severity: Literal["error", "warn"]
    column: str | None = None
    description: str = ""
    per_partition: bool = False
    row_wise: bool = False
    file: str = ""
    blocks: tuple[str, ...] | None = None
    daily: Daily | None = None
    screen: bool = True
    compared_by: str | None = None

    @property
    def held(self) -> tuple[str, ...] | None:
        """The keys of the tables that a failure holds back; None: all that read the partition."""
        return self.blocks if self.severity == "error" else ()

    @property
    def blocking(self) -> bool:
        """Whether a failure holds back everything that reads the partition."""
        return self.held is None


@dataclass(frozen=True)
class Backfill:
    """How many partitions one run may build and how many runs of the table may be active at once."""

    partitions_per_run: int = 1
    concurrency: int = 1


@dataclass(frozen=True)
class Retries:
    """How often a failed partition is tried again for the same inputs and code, and after how long.

    The wait doubles with each attempt.
    """

    attempts: int = 1
    wait_seconds: int = 30


@dataclass(frozen=True)
class LateData:
    """What changes of an input's partition do to those who read it before.

    With `rerun` they are built again if the partition landed at most `within_seconds` (None: any time) after
    its own end; otherwise, and with `ignore`, they stay as they are.
    """

    within_seconds: int | None = None
    action: Literal["rerun", "ignore"] = "rerun"


@dataclass(frozen=True)
class Monitor:
    """How T2 looks at a source table to see which partitions have landed.

    `sql` is the author's own query with the columns `partition` and, optionally, `fingerprint`.
    Without it, a partition has landed when the newest event time has passed its end plus `grace_seconds`.
    `enabled=False`: landed partitions are reported from outside only.
    """

    every_seconds: int = 30
    grace_seconds: int = 0
    sql: str | None = None
    enabled: bool = True


@dataclass(frozen=True)
class Table:
    """A dbt model, seed or snapshot: a Dagster asset with the key [schema, name].

    `key` is "schema/name". `partitioning` is None for a table that is built as a whole.
    With `merges` its partitions are merged into shared rows, one statement at a time; with `merges_in_order`
    what a partition does also depends on those merged before it, so that a statement builds one.
    `code_version` covers the SQL, the macros it calls, its configuration and its ephemeral parents.
    `relation` is the rendered name in the warehouse. `event_time` is the column also of views and of tables
    without partitions, where the author named one. `compares_with` are the keys that the table's tests read
    besides it: those have to exist before it is built, no more. With `isolation` "table" no other table
    shares its runs. Its builds take slots of `pool`, by default of the project's.
    """

    key: str
    unique_id: str
    name: str
    schema: str
    database: str | None
    kind: Literal["model", "seed", "snapshot"]
    materialized: str
    relation: str
    file: str
    code_version: str
    partitioning: Partitioning | None = None
    upstreams: tuple[Upstream, ...] = ()
    compares_with: tuple[str, ...] = ()
    tests: tuple[Test, ...] = ()
    columns: tuple[Column, ...] = ()
    description: str = ""
    tags: tuple[str, ...] = ()
    group: str | None = None
    owners: tuple[str, ...] = ()
    automation: Literal["eager", "manual"] | Cron = "eager"
    backfill: Backfill = field(default_factory=Backfill)
    retries: Retries = field(default_factory=Retries)
    late_data: LateData = field(default_factory=LateData)
    isolation: Literal["run", "table"] = "run"
    pool: str | None = None
    event_time: str | None = None
    merges: bool = False
    merges_in_order: bool = False

    @property
    def is_view(self) -> bool:
        """A view holds no data of its own: it changes with its code, never with its inputs."""
        return self.materialized == "view"

    @property
    def reads_itself(self) -> bool:
        """Whether a partition reads earlier partitions of the same table, so they are built in order."""
        return any(upstream.key == self.key for upstream in self.upstreams)

    @property
    def oldest_first(self) -> bool:
        """Whether no partition may be built before an older one that is ready, too.

        What dbt's own incremental models add may depend on what is in the table already.
        """
        return self.merges_in_order or self.reads_itself or self.materialized == "incremental"

    @property
    def runs_at_once(self) -> int:
        """How many runs of it may be active at once.

        dbt's own incremental materializations share a temporary relation between builds of one table.
        """
        alone = self.reads_itself or self.materialized != "partitioned"
        return 1 if alone else self.backfill.concurrency

    @property
    def by_itself(self) -> bool:
        """Whether it is built without anybody's asking, at once or after a tick."""
        return self.automation != "manual"

    @property
    def follows_code(self) -> bool:
        """Whether new code alone is a reason to build again: views and seeds, whose code is all they are."""
        return self.is_view or self.kind == "seed"


@dataclass(frozen=True)
class Source:
    """A dbt source table: the raw layer, an asset that T2 looks at and does not build."""

    key: str
    unique_id: str
    name: str
    schema: str
    database: str | None
    source_name: str
    relation: str
    file: str
    partitioning: Partitioning | None = None
    tests: tuple[Test, ...] = ()
    columns: tuple[Column, ...] = ()
    description: str = ""
    tags: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    loaded_at: str | None = None
    monitor: Monitor = field(default_factory=Monitor)
    event_time: str | None = None


@dataclass(frozen=True)
class Project:
    """A whole dbt project. `tables` are in dependency order; both mappings are keyed by "schema/name".

    `root` is the absolute project directory, `manifest` the content-addressed manifest that the
    runtime loads, `fingerprint` the hash of everything that was parsed.
    """

    name: str
    root: str
    profiles_dir: str
    target: str
    adapter: str
    fingerprint: str
    manifest: str
    dbt_version: str
    tables: Mapping[str, Table]
    sources: Mapping[str, Source]

    @property
    def pool(self) -> str:
        """The Dagster pool of tables that name no other: that of the warehouse, by adapter and target."""
        return f"{self.adapter}_{self.target}"

    @cached_property
    def downstream(self) -> Mapping[str, tuple[str, ...]]:
        """Each table's or source's readers (itself excluded), in dependency order."""
        readers: dict[str, list[str]] = {key: [] for key in (*self.sources, *self.tables)}
        for table in self.tables.values():
            for key in dict.fromkeys(upstream.key for upstream in table.upstreams):
                if key != table.key:
                    readers[key].append(table.key)
        return {key: tuple(names) for key, names in readers.items()}

    @cached_property
    def height(self) -> Mapping[str, int]:
        """By table: how many tables the longest chain of readers below it has."""
        found: dict[str, int] = {}
        for key in reversed(list(self.tables)):
            found[key] = max((found[reader] + 1 for reader in self.downstream[key]), default=0)
        return found

    def below(self, key: str) -> set[str]:
        """Return the keys of all tables that read a table or source, directly or through others."""
        found: set[str] = set()
        todo = [key]
        while todo:
            fresh = set(self.downstream[todo.pop()]) - found
            found |= fresh
            todo.extend(fresh)
        return found

    @cached_property
    def blockers(self) -> Mapping[str, tuple[str, ...]]:
        """By table: the tables and sources with tests whose failure holds back that table by name."""
        found: dict[str, dict[str, None]] = {}
        for node in self.nodes():
            for test in node.tests:
                for key in test.held or ():
                    found.setdefault(key, {})[node.key] = None
        return {key: tuple(nodes) for key, nodes in found.items()}

    def node(self, key: str) -> Table | Source:
        """Return the table or source with the key "schema/name"; KeyError if there is none."""
        return self.tables[key] if key in self.tables else self.sources[key]

    def nodes(self) -> Iterator[Table | Source]:
        """Sources first, then tables in dependency order."""
        yield from self.sources.values()
        yield from self.tables.values()
