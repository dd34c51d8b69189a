"""The dbt project that the tests of the runtime share; its raw tables are made anew for each test."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from textwrap import dedent

NOW = datetime(2024, 2, 10, 12, tzinfo=timezone.utc)

COUNTED = "select {{ t2.start_date() }} as ordered_on, count(*) as n from {{ t2.window('orders') }}"
FILES = {
    "dbt_project.yml": """
        name: shop
        version: "1.0"
        profile: shop
        flags: {send_anonymous_usage_stats: false}
        """,
    "models/models.yml": """
        sources:
          - name: raw
            tables:
              - name: orders
                loaded_at_field: loaded_at
                config:
                  event_time: ordered_on
                  meta: {t2: {batch_size: day, begin: 2024-01-01}}
                columns: [{name: id, data_tests: [not_null]}]
              - name: rates
                config: {meta: {t2: {static: true}}}
        models:
          - name: orders
            config: {event_time: ordered_on, batch_size: day, begin: 2024-01-01}
            columns:
              - {name: id, data_tests: [not_null, unique]}
              - name: amount
                data_tests:
                  - accepted_values: {arguments: {values: [1, 2, 3], quote: false}, config: {severity: warn}}
            data_tests:
              - at_most: {arguments: {rows: 3}}
              - at_most:
                  name: orders_at_most_1000
                  arguments: {rows: 1000}
                  config: {meta: {t2: {scope: table}}}
          - name: rolling
            config:
              event_time: ordered_on
              batch_size: day
              begin: 2024-01-01
              meta: {t2: {upstream: {orders: {lookback: 2}}}}
          - name: moved
            config:
              event_time: ordered_on
              batch_size: day
              begin: 2024-01-01
              meta: {t2: {upstream: {orders: {lookback: 36h, shift: 1d}}}}
          - name: newest
            config:
              event_time: ordered_on
              batch_size: day
              begin: 2024-01-01
              meta: {t2: {upstream: {orders: {window: latest}}}}
          - name: everything
            config:
              event_time: ordered_on
              batch_size: day
              begin: 2024-01-01
              meta: {t2: {upstream: {orders: {window: all}}}}
          - name: balance
            config:
              event_time: ordered_on
              batch_size: day
              begin: 2024-01-01
              meta: {t2: {upstream: {balance: {lookback: 1}}}}
            columns:
              - {name: ordered_on, data_type: date}
              - {name: total, data_type: bigint}
          - name: untyped
            config:
              event_time: ordered_on
              batch_size: day
              begin: 2024-01-01
              meta: {t2: {upstream: {untyped: {lookback: 1}}}}
            columns: [{name: ordered_on, data_type: date}, {name: total}]
          - name: monthly
            config: {event_time: month, batch_size: month, begin: 2024-01-01}
          - name: recent
            config: {materialized: view, event_time: ordered_on}
          - name: doubled
            config: {materialized: ephemeral, event_time: ordered_on}
          - name: through
            config:
              event_time: ordered_on
              batch_size: day
              begin: 2024-01-01
              meta: {t2: {upstream: {recent: {lookback: 1}, doubled: {lookback: 1}}}}
          - name: strict
            description: A table with all the trimmings
            config:
              event_time: ordered_on
              batch_size: day
              begin: 2024-01-01
              contract: {enforced: true}
              on_schema_change: append_new_columns
              pre_hook: "insert into raw.hooks values ('pre')"
              post_hook: "insert into raw.hooks values ('post')"
            columns:
              - {name: ordered_on, data_type: date, constraints: [{type: not_null}]}
              - {name: rows_, data_type: bigint}
          - name: untidy
            config: {event_time: ordered_on, batch_size: day, begin: 2024-01-01}
          - name: whole
            config: {materialized: table}
          - name: broken
            config: {materialized: table}
        snapshots:
          - name: rates_history
            relation: source('raw', 'rates')
            config: {unique_key: currency, strategy: check, check_cols: all, schema: history}
        """,
    "models/orders.sql": "select id, amount, ordered_on from {{ t2.window('raw', 'orders') }}",
    "models/rolling.sql": """
        select ordered_on, (select count(*) from {{ t2.window('orders') }}) as seen
        from {{ ref('orders') }} where {{ t2.in_window('ordered_on') }}
        """,
    "models/balance.sql": """
        select {{ t2.start_date() }} as ordered_on,
          coalesce((select max(total) from {{ t2.window('balance') }}), 0)
            + (select count(*) from {{ t2.window('orders') }}) as total
        """,
    "models/moved.sql": COUNTED,
    "models/newest.sql": COUNTED,
    "models/everything.sql": COUNTED,
    "models/untyped.sql": "select {{ t2.start_date() }} as ordered_on, total from {{ t2.window('untyped') }}",
    "models/monthly.sql": """
        select cast(date_trunc('month', ordered_on) as date) as month, count(*) as orders
        from {{ t2.window('orders') }} group by 1
        """,
    "models/recent.sql": "select * from {{ ref('orders') }}",
    "models/doubled.sql": "select id, 2 * amount as amount, ordered_on from {{ t2.window('orders') }}",
    "models/through.sql": """
        select {{ t2.start_date() }} as ordered_on, (select count(*) from {{ t2.window('recent') }}) as seen,
          (select sum(amount) from {{ t2.window('doubled') }}) as doubled
        """,
    "models/strict.sql": "select ordered_on, count(*) as rows_ from {{ t2.window('orders') }} group by 1",
    "models/untidy.sql": "select ordered_on, id from {{ source('raw', 'orders') }}",
    "models/whole.sql": """
        select o.*, r.rate from {{ ref('orders') }} as o join {{ source('raw', 'rates') }} as r on true
        """,
    "models/broken.sql": "select * from raw.no_such_table",
    "macros/at_most.sql": """
        {% test at_most(model, rows) %}
        select count(*) from {{ model }} having count(*) > {{ rows }}
        {% endtest %}
        """,
    "tests/orders_are_positive.sql": "select * from {{ t2.window('orders') }} where amount <= 0",
    "seeds/countries.csv": "code,name\nDE,Germany\nFR,France\n",
}

MODEL_DEFAULTS = """
models:
  shop: {+materialized: partitioned}
"""

# PostgreSQL's microbatch needs a unique key, DuckDB's refuses one.
MICROBATCH = {
    "models/micro.sql": """
        {{ config(materialized='incremental', incremental_strategy='microbatch', event_time='ordered_on',
                  batch_size='day', begin='2024-01-01') }}
        select id, amount, ordered_on from {{ ref('orders') }}
        """,
    "models/micro_windowed.sql": """
        {{- config(materialized='incremental', incremental_strategy='microbatch', event_time='ordered_on',
                   batch_size='day', begin='2024-01-01',
                   meta={'t2': {'upstream': {'orders': {'lookback': 1}}}}) -}}
        select id, ordered_on from {{ t2.window('orders') }}
        where {{ t2.in_window('ordered_on') }}
        """,
}


def write(root: Path, profile: str, files: dict[str, str] | None = None) -> Path:
    """Write the project with one output in its profile."""
    given = {
        **FILES,
        "profiles.yml": f"shop: {{target: dev, outputs: {{dev: {profile}}}}}\n",
        **(files or {}),
    }
    for name, text in given.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text).lstrip("\n"), "utf-8")
    with (root / "dbt_project.yml").open("a") as project:
        project.write(MODEL_DEFAULTS)
    return root


RAW = [
    "create schema raw",
    "create table raw.orders (id integer, amount integer, ordered_on date, loaded_at timestamp)",
    "create table raw.rates (currency varchar(3), rate integer)",
    "create table raw.hooks (name varchar(9))",
    "insert into raw.rates values ('EUR', 1), ('USD', 2)",
    # Two orders a day from the 1st to the 6th.
    *(
        f"insert into raw.orders values ({2 * day}, 1, '2024-01-0{day}', '2024-01-0{day} 12:00:00'),"
        f" ({2 * day + 1}, 2, '2024-01-0{day}', '2024-01-0{day} 13:00:00')"
        for day in range(1, 7)
    ),
]


def days(first: int, last: int | None = None) -> list[str]:
    """Return the keys of some days of January."""
    return [f"2024-01-{day:02d}" for day in range(first, (last or first) + 1)]
