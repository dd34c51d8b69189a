"""Options and opening steps that the commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from t2.errors import NotFound, StorageError

if TYPE_CHECKING:
    from t2.ledger.history import ActiveRun
    from t2.ledger.ledger import Ledger
    from t2.planning.planner import Plan
    from t2.planning.state import State
    from t2.project.model import Project, Source, Table

F = TypeVar("F", bound=Callable[..., Any])


def project_options(function: F) -> F:
    """Add --project-dir, --profiles-dir and --target."""
    for option in (
        click.option("--target", help="Target of the dbt profile.  [default: the profile's]"),
        click.option(
            "--profiles-dir",
            type=click.Path(file_okay=False, path_type=Path),
            help="Directory of profiles.yml.  [default: the project's, else ~/.dbt]",
        ),
        click.option(
            "--project-dir",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            default=Path(),
            help="A directory inside the dbt project.  [default: this one]",
        ),
    ):
        function = option(function)
    return function


format_option = click.option(
    "--format", "output", type=click.Choice(["text", "json"]), default="text", show_default=True
)


def load(project_dir: Path, profiles_dir: Path | None, target: str | None) -> Project:
    """Load the project, saying so when it takes long because dbt has to parse it."""
    from t2.runtime.parsing import load_project

    def on_parse() -> None:
        click.echo("dbt parses the project …", err=True)

    return load_project(project_dir, profiles_dir=profiles_dir, target=target, on_parse=on_parse)


class NothingYet:
    """The ledger of a project that nothing was ever run for: Dagster has not made its event log yet."""

    def follow(self) -> int:
        """There is nothing to catch up with."""
        return 0

    def state(self, project: Project, now: datetime) -> State:
        """Return the state in which nothing has landed."""
        from t2.planning.grid import Grid
        from t2.planning.state import State, TableState

        cuts = {node.key: node.partitioning for node in project.nodes()}
        counts = {key: Grid.of(cut).count(now) if cut else 1 for key, cut in cuts.items()}
        return State({key: TableState.empty(count) for key, count in counts.items()})

    def active_runs(self) -> list[ActiveRun]:
        """Return no runs."""
        return []

    def failure(self, key: str, partition: str) -> str | None:
        """Return no error."""
        return None

    def failed_checks(
        self, project: Project, key: str, partition: str, reader: str | None = None
    ) -> list[str]:
        """Return no checks."""
        return []

    def run_of(self, key: str, partition: str) -> str | None:
        """Return no run."""
        return None


def open_ledger(project: Project) -> Ledger | NothingYet:
    """Open the ledger of the project's Dagster instance (DAGSTER_HOME, else .t2 in the project).

    Says so when the instance is the project's own and no `t2 dev` runs: nothing is built then.
    """
    from t2.ledger.ledger import Ledger
    from t2.ledger.storage import locate
    from t2.runtime.home import home_of, running_family

    home = home_of(Path(project.root))
    url = locate(home.dagster)
    if home.dagster == home.state and running_family(home) is None:
        click.echo("t2 dev does not run; nothing is built until it does", err=True)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        return NothingYet()
    return Ledger(url)


def open_written_ledger(project: Project) -> Ledger:
    """Open the ledger to write what people ask for; StorageError if nothing ever ran in the project."""
    from t2.ledger.ledger import Ledger

    ledger = open_ledger(project)
    if not isinstance(ledger, Ledger):
        raise StorageError("nothing ever ran in this project", hint="start t2 dev once")
    return ledger


def current_plan(project: Project, ledger: Ledger | NothingYet, now: datetime | None = None) -> Plan:
    """Catch the ledger up with the event log and plan as the planner would at this moment."""
    from t2.planning.planner import plan

    ledger.follow()
    now = now or datetime.now(timezone.utc)
    return plan(project, ledger.state(project, now), now)


def find_table(project: Project, name: str, *, sources: bool = False) -> str:
    """Return the key of a table given as `name`, `schema.name` or `schema/name`."""
    nodes: dict[str, Table | Source] = {**project.tables, **(project.sources if sources else {})}
    wanted = name.replace(".", "/")
    found = [key for key, node in nodes.items() if wanted in (key, node.name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise NotFound(f"{name!r} is the name of several tables", hint="use one of " + ", ".join(found))
    near = get_close_matches(name, [node.name for node in nodes.values()], n=1)
    raise NotFound(
        f"the project {project.name} has no table {name!r}",
        hint=f"did you mean {near[0]!r}?" if near else "`t2 parse` lists the tables",
    )


def find_tables(project: Project, names: Iterable[str]) -> list[str]:
    """Return the keys of tables in dependency order; `name+` also names what reads it, however far down."""
    found: set[str] = set()
    for name in names:
        key = find_table(project, name.removesuffix("+"))
        found.add(key)
        if name.endswith("+"):
            found |= project.below(key)
    return [key for key in project.tables if key in found]


def find_partition(project: Project, key: str, partition: str) -> int:
    """Return the number of a table's partition; a partition of an unpartitioned table is an error."""
    from t2.planning.grid import Grid

    partitioning = project.node(key).partitioning
    if partitioning is None:
        raise NotFound(f"{key} is not partitioned", hint="leave the partition out")
    try:
        return Grid.of(partitioning).index(partition)
    except NotFound as error:
        raise NotFound(f"{key}: {error.message}", hint=error.hint) from error
