"""The dbt project that the tests of the Dagster face share."""

from __future__ import annotations

from pathlib import Path

FILES = {
    "dbt_project.yml": """
name: tiny
version: "1.0"
profile: tiny
flags: {send_anonymous_usage_stats: false}
""",
    "profiles.yml": """
tiny:
  target: dev
  outputs:
    dev: {type: duckdb, path: tiny.duckdb, schema: main, threads: 3}
""",
    "models/models.yml": """
sources:
  - name: raw
    schema: raw
    tables:
      - name: orders
        description: What was ordered.
        config:
          event_time: ordered_on
          meta: {t2: {batch_size: day, begin: "2024-01-01", owner: sales}}
        columns:
          - {name: id, data_type: integer, data_tests: [not_null]}
models:
  - name: orders_daily
    description: Orders, a day at a time.
    config:
      materialized: partitioned
      incremental_strategy: insert_overwrite
      event_time: ordered_on
      batch_size: day
      begin: "2024-01-01"
      tags: [core]
      meta: {t2: {owner: growth@example.com, backfill: {partitions_per_run: 10}}}
    columns:
      - {name: id, data_type: integer, description: The order's number.}
      - name: amount
        data_type: double
        data_tests: [not_null]
      - name: note
        data_type: varchar
        data_tests:
          - not_null: {config: {severity: warn}}
  - name: balance
    config:
      materialized: partitioned
      incremental_strategy: insert_overwrite
      event_time: ordered_on
      batch_size: day
      begin: "2024-01-01"
      meta: {t2: {upstream: {balance: {lookback: 1}}, backfill: {partitions_per_run: 10}}}
    columns:
      - {name: ordered_on, data_type: date}
      - {name: amount, data_type: double}
  - name: totals
    config: {materialized: table, group: finance}
  - name: broken
    config: {materialized: table}
  - name: after_broken
    config: {materialized: table}
  - name: fine
    config: {materialized: table}
groups:
  - name: finance
    owner: {name: finance, email: finance@example.com}
""",
    "models/orders_daily.sql": "select id, amount, note, ordered_on from {{ t2.window('raw', 'orders') }}",
    # A note that is "bad" cannot be cast: how a test makes one day of this table fail.
    "models/balance.sql": """
select
    ordered_on,
    sum(amount + cast(case when note = 'bad' then note else '0' end as integer))
        + coalesce((select max(amount) from {{ t2.window('balance') }}), 0) as amount
from {{ t2.window('raw', 'orders') }}
group by ordered_on
""",
    "models/totals.sql": "select sum(amount) as amount from {{ ref('orders_daily') }}",
    "models/broken.sql": "select no_such_column from {{ ref('fine') }}",
    "models/after_broken.sql": "select * from {{ ref('broken') }}",
    "models/fine.sql": "select 1 as id",
}


def write(root: Path) -> Path:
    """Write the project and its raw data."""
    import duckdb

    for name, text in FILES.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.lstrip())
    with duckdb.connect(str(root / "tiny.duckdb")) as connection:
        connection.execute("create schema raw")
        connection.execute(
            "create table raw.orders as select i as id, 10.0 as amount, 'x' as note, "
            "date '2024-01-01' + i::int as ordered_on from range(10) t(i)"
        )
    return root
