"""A dbt project in which tests block: all readers, some readers, nobody, the table's own next partition."""

from __future__ import annotations

from pathlib import Path

PARTITIONED = """
    config:
      materialized: partitioned
      incremental_strategy: insert_overwrite
      event_time: ordered_on
      batch_size: day
      begin: "2024-01-01"
"""
META = '      meta: {{t2: {{end: "2024-01-08", backfill: {{partitions_per_run: 10}}{} }}}}\n'

FILES = {
    "dbt_project.yml": """
name: gated
version: "1.0"
profile: gated
flags: {send_anonymous_usage_stats: false}
""",
    "profiles.yml": """
gated:
  target: dev
  outputs:
    dev: {type: duckdb, path: gated.duckdb, schema: main, threads: 2}
""",
    "models/models.yml": f"""
sources:
  - name: raw
    schema: raw
    tables:
      - name: orders
        config:
          event_time: ordered_on
          meta: {{t2: {{batch_size: day, begin: "2024-01-01", end: "2024-01-08"}}}}
        columns:
          - name: id
            data_tests: [not_null]
models:
  - name: orders{PARTITIONED}{META.format("")}
    columns:
      - name: amount
        data_tests: [not_null]
      - name: note
        data_tests:
          - not_null: {{config: {{meta: {{t2: {{blocks: [named, lagging]}}}}}}}}
      - name: extra
        data_tests:
          - not_null: {{config: {{severity: warn}}}}
      - name: id
        data_tests:
          - unique: {{config: {{meta: {{t2: {{scope: table}}}}}}}}
          - not_null: {{config: {{meta: {{t2: {{when: daily, at: "05:00", blocks: none}}}}}}}}
  - name: named{PARTITIONED}{META.format("")}
  - name: lagging{PARTITIONED}{META.format(", upstream: {orders: {lookback: 1}}")}
  - name: free{PARTITIONED}{META.format("")}
  - name: after_named{PARTITIONED}{META.format("")}
  - name: balance{PARTITIONED}{META.format(", upstream: {balance: {lookback: 1}}")}
    columns:
      - {{name: ordered_on, data_type: date}}
      - name: amount
        data_type: double
        data_tests: [not_null]
""",
    "models/orders.sql": "select id, amount, note, extra, ordered_on from {{ t2.window('raw', 'orders') }}",
    "models/named.sql": "select id, ordered_on from {{ t2.window('orders') }}",
    "models/lagging.sql": """
select ordered_on, (select count(*) from {{ t2.window('orders') }}) as seen
from {{ t2.window('orders') }}
where {{ t2.in_window('ordered_on') }}
""",
    "models/free.sql": "select id, ordered_on from {{ t2.window('orders') }}",
    "models/after_named.sql": "select id, ordered_on from {{ t2.window('named') }}",
    "models/balance.sql": """
select ordered_on, sum(amount) + coalesce((select max(amount) from {{ t2.window('balance') }}), 0) as amount
from {{ t2.window('raw', 'orders') }}
group by ordered_on
""",
}


def write(root: Path) -> Path:
    """Write the project and its raw data: seven days, one row each."""
    import duckdb

    for name, text in FILES.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.lstrip())
    with duckdb.connect(str(root / "gated.duckdb")) as connection:
        connection.execute("create schema raw")
        connection.execute(
            "create table raw.orders as select i as id, 10.0 as amount, 'x' as note, 'y' as extra, "
            "date '2024-01-01' + i::int as ordered_on from range(7) t(i)"
        )
    return root
