"""The options that say which partitions of which tables are built again."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from t2.cli.options import find_table
from t2.errors import ConfigError

if TYPE_CHECKING:
    from t2.planning.choosing import Chosen
    from t2.planning.grid import Bools
    from t2.planning.planner import Plan

F = TypeVar("F", bound=Callable[..., Any])


def choice_options(function: F) -> F:
    """Add the tables and the ways to choose their partitions: the fields of `Choice`."""
    for option in (
        click.option(
            "--failed", is_flag=True, help="Those whose newest attempt failed or that a check blocks."
        ),
        click.option("--missing", is_flag=True, help="Those that were never built."),
        click.option("--all", "everything", is_flag=True, help="All partitions that are due."),
        click.option(
            "--partition", "partitions", multiple=True, help="A partition, or a day; may be repeated."
        ),
        click.option("--to", "end", help="The last partition, or a day.  [default: the newest that is due]"),
        click.option("--from", "start", help="The first partition, or a day."),
        click.argument("tables", nargs=-1, required=True, metavar="TABLE[+] ..."),
    ):
        function = option(function)
    return function


@dataclass(frozen=True)
class Choice:
    """What was asked for; ConfigError if it contradicts itself."""

    tables: tuple[str, ...]
    start: str | None
    end: str | None
    partitions: tuple[str, ...]
    everything: bool
    missing: bool
    failed: bool

    def __post_init__(self) -> None:
        given = [way for way, value in self._ways.items() if value]
        if len(given) > 1 or (self.end and not self.start):
            raise ConfigError(
                f"{' and '.join(given) if len(given) > 1 else '--to without --from'} cannot be combined",
                hint="choose partitions in one way",
            )

    @property
    def _ways(self) -> dict[str, Any]:
        return {"--from": self.start, "--partition": self.partitions, **self._flags}

    @property
    def _flags(self) -> dict[str, bool]:
        return {"--all": self.everything, "--missing": self.missing, "--failed": self.failed}

    @property
    def words(self) -> str:
        """What was asked for, as it could be typed."""
        words = list(self.tables)
        words += ["--from", self.start] if self.start else []
        words += ["--to", self.end] if self.end else []
        words += [word for partition in self.partitions for word in ("--partition", partition)]
        return shlex.join([*words, *(flag for flag, given in self._flags.items() if given)])

    def chosen(self, plan: Plan) -> Chosen:
        """Return the partitions; NotFound or ConfigError where there are none like that."""
        from t2.planning.choosing import with_downstream

        chosen: Chosen = {}
        roots = []
        for name in self.tables:
            key = find_table(plan.project, name.removesuffix("+"))
            chosen[key] = self._of(plan, key)
            roots += [key] if name.endswith("+") else []
        return with_downstream(plan.project, plan, chosen, roots)

    def _of(self, plan: Plan, key: str) -> Bools:
        """Return the partitions that were chosen of one table."""
        from t2.planning import choosing

        if plan.project.tables[key].is_view:
            raise ConfigError(f"{key} is a view: it holds no data to build again")
        if self.everything:
            return choosing.every(plan, key)
        if self.missing:
            return choosing.missing(plan, key)
        if self.failed:
            return choosing.failed(plan, key)
        return self._named(plan, key)

    def _named(self, plan: Plan, key: str) -> Bools:
        """Return the partitions in the range or list; a table without partitions needs neither."""
        from t2.planning import choosing

        partitioning = plan.project.tables[key].partitioning
        if partitioning is None:
            if self.start or self.partitions:
                hint = "leave --from and --partition out, or use --all"
                raise ConfigError(f"{key} is not partitioned", hint=hint)
            return choosing.every(plan, key)
        if self.start:
            return choosing.between(plan, key, self.start, self.end)
        if not self.partitions:
            raise ConfigError(
                f"{key} has {partitioning.grain.value} partitions, and none was asked for",
                hint="add --from and --to, --partition, --all, --missing or --failed",
            )
        return choosing.single(plan, key, self.partitions)
