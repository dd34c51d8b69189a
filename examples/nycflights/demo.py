"""Run the example: T2's processes, and the year 2013 fed to them hour by hour.

    python demo.py           # until Ctrl-C, with Dagster's UI; an hour of data every 5 seconds
    python demo.py --once    # 14 days without a browser; exits 0 when all that can land has landed

The demo's Dagster home and warehouse are in .t2/demo, made anew each time. What has to land is not asked of
the planner: it is every partition that ends before the hours that were fed do.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import click
from feed import BEGIN, END, HOUR, PROJECT, Feeder, feed, hours_between, schedule, utc_now

if TYPE_CHECKING:
    from t2.ledger.ledger import Ledger
    from t2.planning.planner import Plan
    from t2.project.model import Project, Source, Table

BURST_DAYS = 12
ONCE_DAYS = 14
LOOK_SECONDS = 2.0


@dataclass(frozen=True)
class Missing:
    """A table or source that lacks partitions: `landed` of `wanted` are there and up to date."""

    key: str
    landed: int
    wanted: int
    others: Mapping[str, int]

    def __str__(self) -> str:
        others = ", ".join(f"{count} {outcome}" for outcome, count in self.others.items())
        return f"{self.key} {self.landed} of {self.wanted}" + (f" ({others})" if others else "")


@click.command()
@click.option("--once", is_flag=True, help="Feed 14 days, wait until everything has landed, and exit.")
@click.option("--pace", type=click.FloatRange(0), help="Seconds an hour.  [default: 5, with --once 0.5]")
@click.option(
    "--deadline", type=click.FloatRange(1), default=360.0, show_default=True, help="Seconds for --once."
)
@click.option("--port", type=int, default=3000, show_default=True, help="Port of Dagster's web server.")
def main(once: bool, pace: float | None, deadline: float, port: int) -> None:
    """Run T2 on flights of 2013; exit with 1 if --once finds something missing at the deadline."""
    from t2.errors import T2Error

    started = time.monotonic()
    try:
        if once:
            sys.exit(run_once(0.5 if pace is None else pace, started + deadline))
        run_until_interrupted(5.0 if pace is None else pace, port)
    except T2Error as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        say("stopped")


def run_once(pace: float, deadline: float) -> int:
    """Land 14 days; return 0, or 1 when the deadline passes first."""
    from t2.cli.options import load, open_ledger
    from t2.cli.status import render
    from t2.explain.status import status
    from t2.runtime.family import Family

    feeder = reset()
    say("loading the project: dbt parses it when it changed")
    project = load(PROJECT, None, None)
    hours = hours_between(BEGIN, BEGIN + timedelta(days=ONCE_DAYS))
    family = Family(PROJECT, webserver=False, report=say)
    with ExitStack() as stack:
        stack.callback(family.stop)
        family.start()
        family.wait_ready(deadline - time.monotonic())
        say("T2 is ready")
        feed(feeder, schedule(hours, burst=BURST_DAYS * 24), pace=pace, say=say)
        ledger = open_ledger(project)
        plan, missing = wait_for(project, ledger, hours[-1] + HOUR, deadline)
    click.echo(render(status(plan)))
    if not missing:
        say(f"everything has landed that {ONCE_DAYS} days allow")
        return 0
    for one in missing:
        click.echo(f"missing: {one}{failure_of(plan, ledger, one)}", err=True)
    return 1


def run_until_interrupted(pace: float, port: int) -> None:
    """Feed hours until Ctrl-C, or until the year is over and then wait for Ctrl-C."""
    from t2.runtime.family import Family

    feeder = reset()
    say("starting T2: dbt parses the project when it changed")
    with Family(PROJECT, port=port, report=say) as family:
        say(f"Dagster's UI: {family.url}    Ctrl-C ends the demo")
        feed(feeder, schedule(hours_between(BEGIN, END), burst=BURST_DAYS * 24), pace=pace, say=say)
        say("the year is over; waiting for Ctrl-C")
        while True:
            time.sleep(60)


def reset() -> Feeder:
    """Make the demo's state anew and return a feeder whose raw tables exist.

    Raises ConfigError while another demo, or `t2 dev`, runs for the project.
    """
    from t2.errors import ConfigError
    from t2.runtime.home import DAGSTER_YAML, home_of, running_family

    pid = running_family(home_of(PROJECT))
    if pid is not None:
        raise ConfigError(f"T2 already runs for {PROJECT.name} (pid {pid})", hint="end it with Ctrl-C first")
    state = PROJECT / ".t2" / "demo"
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    (state / "dagster.yaml").write_text(DAGSTER_YAML.format(home=state))
    database = state / "nycflights.duckdb"
    os.environ.update(DAGSTER_HOME=str(state), NYCFLIGHTS_DATABASE=str(database))
    feeder = Feeder(database)
    feeder.load_static(utc_now())
    return feeder


def wait_for(project: Project, ledger: Ledger, end: datetime, deadline: float) -> tuple[Plan, list[Missing]]:
    """Wait until all that ends by `end` (naive, UTC) has landed; return the last plan and what is missing.

    The plan is that of the moment when the last hour was over, in 2013: nothing later is due in it.
    """
    from t2.cli.options import current_plan

    told, at = "", end.replace(tzinfo=timezone.utc)
    while True:
        plan = current_plan(project, ledger, at)
        missing = missing_of(plan, at)
        if not missing or time.monotonic() > deadline:
            return plan, missing
        line = f"waiting for {len(missing)} tables, the first is {missing[0]}"
        if line != told:
            say(line)
        told = line
        time.sleep(LOOK_SECONDS)


def missing_of(plan: Plan, end: datetime) -> list[Missing]:
    """Return what lacks one of its partitions that end by `end`, sources first, then in dependency order."""
    found = (_missing(plan, node, end) for node in plan.project.nodes())
    return [one for one in found if one is not None]


def _missing(plan: Plan, node: Source | Table, end: datetime) -> Missing | None:
    from t2.planning.grid import Grid
    from t2.planning.verdict import Outcome

    wanted = Grid.of(node.partitioning).count(end) if node.partitioning else 1
    if node.key in plan.project.sources:
        landed, others = int(plan.state.tables[node.key].landed[:wanted].sum()), {}
    else:
        outcomes = plan.outcomes[node.key][:wanted]
        landed = int((outcomes == Outcome.LANDED).sum())
        counts = ((outcome, int((outcomes == outcome).sum())) for outcome in Outcome)
        others = {o.label: count for o, count in counts if count and o is not Outcome.LANDED}
    return None if landed >= wanted else Missing(node.key, landed, wanted, others)


def failure_of(plan: Plan, ledger: Ledger, missing: Missing) -> str:
    """Return the first missing partition's error or failed checks; nothing if it only waits."""
    import numpy as np

    from t2.planning.grid import Grid
    from t2.planning.verdict import Outcome

    node = plan.project.node(missing.key)
    bad = np.isin(
        plan.outcomes.get(missing.key, np.empty(0)), (Outcome.FAILED, Outcome.BLOCKED, Outcome.RETRYING)
    )
    if not bad.any():
        return ""
    index = int(np.flatnonzero(bad)[0])
    key = Grid.of(node.partitioning).key(index) if node.partitioning else ""
    error = ledger.failure(missing.key, key)
    checks = ", ".join(ledger.failed_checks(missing.key, key))
    return f"\n  {key or 'as a whole'}: {error or f'failed checks: {checks}'}"


def say(line: str) -> None:
    """Print a line with the time."""
    click.echo(f"{datetime.now():%H:%M:%S} {line}")


if __name__ == "__main__":
    main()
