"""`t2 dev`: everything for local work in one family of processes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, NoReturn

import click

from t2.cli.options import load, project_options


@click.command(epilog="Examples:  t2 dev | t2 dev --port 3001 | t2 dev --module my_project.definitions")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of the web server.")
@click.option("--port", "-p", default=3000, show_default=True, help="Port of the web server.")
@click.option("--no-webserver", is_flag=True, help="Start no web server.")
@click.option(
    "--module",
    "-m",
    help="Python module with the definitions.  [default: the dbt project alone]",
)
@project_options
def command(
    host: str,
    port: int,
    no_webserver: bool,
    module: str | None,
    project_dir: Path,
    profiles_dir: Path | None,
    target: str | None,
) -> None:
    """Run everything for local work: web server, daemon, code location, worker.

    When files of the dbt project are edited, its definitions are loaded again; a mistake is told here and
    what was loaded before goes on.

    State and logs are in the project's .t2, unless DAGSTER_HOME is set. Ctrl-C ends all processes; runs
    that are active then are failed at the next start and tried again.
    """
    from t2.project.inputs import find_project
    from t2.runtime.family import LOCATION_MODULE, Family

    environ = dict(os.environ)
    if profiles_dir:
        environ["T2_PROFILES_DIR"] = str(profiles_dir.resolve())
    if target:
        environ["T2_TARGET"] = target
    root = find_project(project_dir)
    if module is None:
        load(root, profiles_dir, target)  # what is wrong with it is said here, not in the log of a process
    family = Family(
        root,
        webserver=not no_webserver,
        host=host,
        port=port,
        module=module or LOCATION_MODULE,
        environ=environ,
        report=click.echo,
    )
    click.echo(f"project        {family.home.project}")
    click.echo(f"configuration  {family.home.config}")
    click.echo(f"logs           {family.home.logs}")
    # SIGINT too: a shell that starts a command in the background has it ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    started = time.monotonic()
    try:
        family.start()
        _wait(family)
        click.echo(f"ready after {time.monotonic() - started:.1f} s")
        if family.url:
            click.echo(family.url)
        click.echo("Ctrl-C ends it")
        signal.pause()
    except KeyboardInterrupt:
        click.echo("ending")
    finally:
        family.stop()


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def _wait(family: Any) -> None:
    """Wait until all is ready, naming every ten seconds what is not."""
    from t2.errors import T2Error

    while True:
        try:
            family.wait_ready(timeout=10)
        except T2Error:
            click.echo(f"still starting: {', '.join(family.starting)}")
        else:
            return
