"""`t2 init`: add T2 to a dbt project, or make a new one."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import click

from t2.errors import ConfigError

IGNORED = ("target/", "dbt_packages/", "logs/", ".t2/", "*.duckdb", "*.duckdb.*")

PROJECT = """\
name: {name}
version: 1.0.0
profile: {name}
flags:
  send_anonymous_usage_stats: false
seeds:
  {name}:
    +column_types: {{ordered_at: timestamp, amount: double}}
"""

PROFILES = """\
{name}:
  target: dev
  outputs:
    dev:
      type: duckdb
      path: "{{{{ env_var('T2_DATABASE', '{name}.duckdb') }}}}"
      threads: 4
"""

SCHEMA = """\
models:
  - name: fct_orders_daily
    description: Orders and revenue of each day and country.
    config:
      materialized: partitioned
      event_time: order_date
      batch_size: day
      begin: {begin}
      meta:
        t2:
          backfill: {{partitions_per_run: 30}}
    columns:
      - name: order_date
        data_type: date
        data_tests: [not_null]
      - name: country
        data_type: varchar
        data_tests: [not_null]
      - name: orders
        data_type: bigint
      - name: revenue
        data_type: double

  - name: fct_revenue_rolling
    description: Revenue of each day and the six before it.
    config:
      materialized: partitioned
      event_time: order_date
      batch_size: day
      begin: {begin}
      meta:
        t2:
          upstream:
            fct_orders_daily: {{lookback: 6}}
    columns:
      - name: order_date
        data_type: date
        data_tests: [not_null, unique]
      - name: revenue_7_days
        data_type: double
"""

DAILY = """\
select
    cast(ordered_at as date) as order_date,
    country,
    count(*) as orders,
    sum(amount) as revenue
from {{ ref('raw_orders') }}
where {{ t2.in_window('ordered_at') }}
group by 1, 2
"""

ROLLING = """\
select
    {{ t2.start_date() }} as order_date,
    sum(revenue) as revenue_7_days
from {{ t2.window('fct_orders_daily') }}
"""


@click.command(epilog="Examples:  cd my_dbt_project && t2 init | t2 init shop")
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """Add T2 to the dbt project in this directory; with NAME: make a new project in the directory NAME.

    Running it again changes nothing. To undo it, remove `.t2` and `dbt_packages/t2`.
    """
    from t2.runtime.parsing import find_project, install_dependencies, install_package

    if name is not None:
        root = _scaffold(name, datetime.now(timezone.utc).date())
        click.echo(f"made a dbt project in {name}/ with one seed and two partitioned tables")
    else:
        root = find_project(Path())
    install_dependencies(root)
    if install_package(root):
        click.echo("installed T2's dbt package into dbt_packages/t2")
    added = _ignore(root)
    if added:
        click.echo("added to .gitignore: " + " ".join(added))
    click.echo("\nNext:")
    if name is not None:
        click.echo(f"  cd {name}")
    click.echo("  t2 parse     what T2 understands of the project")
    click.echo("  t2 dev       run it, with Dagster's pages at http://127.0.0.1:3000")


def _scaffold(name: str, today: date) -> Path:
    if not name.isidentifier():
        raise ConfigError(
            f"{name!r} cannot be a dbt project's name", hint="use letters, digits and underscores"
        )
    root = Path(name).resolve()
    if root.exists() and any(root.iterdir()):
        raise ConfigError(
            f"the directory {name} is not empty", hint="choose another name, or run `t2 init` in it"
        )
    begin = today - timedelta(days=14)
    files = {
        "dbt_project.yml": PROJECT.format(name=name),
        "profiles.yml": PROFILES.format(name=name),
        "models/schema.yml": SCHEMA.format(begin=begin.isoformat()),
        "models/fct_orders_daily.sql": DAILY,
        "models/fct_revenue_rolling.sql": ROLLING,
        "seeds/raw_orders.csv": _orders(begin, today),
    }
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def _orders(begin: date, end: date) -> str:
    """Return a few orders a day, the same for the same days."""
    rows = ["order_id,ordered_at,country,amount"]
    for day in range((end - begin).days):
        for number in range(8):
            at = datetime.combine(begin + timedelta(days=day), datetime.min.time()) + timedelta(
                hours=3 * number
            )
            country = ("de", "fr", "nl")[(day + number) % 3]
            rows.append(
                f"{day * 8 + number + 1},{at:%Y-%m-%d %H:%M:%S},{country},{10 + (day * 7 + number * 13) % 90}"
            )
    return "\n".join(rows) + "\n"


def _ignore(root: Path) -> list[str]:
    """Add what T2 and dbt write to .gitignore; return the lines that were missing."""
    file = root / ".gitignore"
    present = file.read_text().splitlines() if file.exists() else []
    missing = [line for line in IGNORED if line not in present]
    if missing:
        file.write_text("\n".join([*present, *missing]) + "\n")
    return missing
