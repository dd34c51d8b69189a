"""`t2 deps`: dbt packages, T2's own among them."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(epilog="Example:  t2 deps --project-dir examples/nycflights")
@click.option(
    "--project-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="A directory inside the dbt project.  [default: this one]",
)
def command(project_dir: Path) -> None:
    """Install the packages that packages.yml names, and T2's dbt package beside them.

    Use it instead of `dbt deps`, which removes what it does not know.
    """
    from t2.runtime.parsing import find_project, install_dependencies, install_package

    root = find_project(project_dir)
    if install_dependencies(root):
        click.echo("installed the packages of packages.yml")
    changed = install_package(root)
    click.echo("installed T2's dbt package" if changed else "T2's dbt package is up to date")
