"""`t2 reset`: forget what was built, to begin again."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from t2.cli.options import project_options
from t2.errors import ConfigError

KEPT = {"dagster.yaml", ".gitignore"}


@click.command(epilog="Examples:  t2 reset | t2 reset --yes --warehouse")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--warehouse", is_flag=True, help="Delete the project's DuckDB file as well.")
@project_options
@click.pass_context
def command(
    ctx: click.Context,
    yes: bool,
    warehouse: bool,
    project_dir: Path,
    profiles_dir: Path | None,
    target: str | None,
) -> None:
    """Forget what was built: remove the local Dagster storage in the project's .t2.

    dagster.yaml stays. Refuses while `t2 dev` runs. A DAGSTER_HOME outside the project is never touched.
    """
    from t2.project.inputs import find_project
    from t2.runtime.home import home_of, running_family

    home = home_of(find_project(project_dir))
    if (pid := running_family(home)) is not None:
        raise ConfigError(f"t2 dev runs for {home.project} (pid {pid})", hint="end it with Ctrl-C first")
    paths = sorted(path for path in home.state.glob("*") if path.name not in KEPT)
    if warehouse:
        paths += _warehouse_files(home.project, profiles_dir, target)
    if not paths:
        click.echo("nothing to remove")
        return
    for path in paths:
        click.echo(f"  {path}")
    if not yes and not click.confirm("Remove these?"):
        ctx.exit(2)
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    click.echo(f"removed {len(paths)}")


def _warehouse_files(project_dir: Path, profiles_dir: Path | None, target: str | None) -> list[Path]:
    """Return the DuckDB file and its write-ahead log; ConfigError if the warehouse is not a local file."""
    from t2.project.model import Project
    from t2.runtime.parsing import load_project
    from t2.runtime.warm import Warm

    project: Project = load_project(project_dir, profiles_dir=profiles_dir, target=target)
    file = Warm.of(project).file
    if file is None:
        raise ConfigError(f"the warehouse of target {project.target} is not a local DuckDB file")
    return [path for path in (file, file.with_name(f"{file.name}.wal")) if path.exists()]
