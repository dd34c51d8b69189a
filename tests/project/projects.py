"""Small dbt projects on DuckDB, written into a temporary directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

DEFAULTS = {
    "dbt_project.yml": """
        name: shop
        version: "1.0"
        profile: shop
        flags: {send_anonymous_usage_stats: false}
        """,
    "profiles.yml": """
        shop:
          target: dev
          outputs:
            dev: {type: duckdb, path: warehouse.duckdb, schema: main}
            other: {type: duckdb, path: other.duckdb, schema: other}
        """,
}


def write_project(root: Path, files: Mapping[str, str]) -> Path:
    """Write the files, and dbt_project.yml and profiles.yml where they are not among them."""
    for name, text in {**DEFAULTS, **files}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text).lstrip("\n"), "utf-8")
    return root


RICH = {
    "dbt_project.yml": """
        name: shop
        version: "1.0"
        profile: shop
        flags: {send_anonymous_usage_stats: false}
        vars: {currency: EUR}
        models:
          +meta: {t2: {timezone: Europe/Berlin, retries: {attempts: 3}}}
          shop:
            marts:
              +materialized: partitioned
              +meta:
                t2:
                  backfill: {partitions_per_run: 30}
                  owner: data@example.com
        sources:
          +meta: {t2: {timezone: Europe/Berlin}}
        data_tests:
          +meta: {t2: {screen: false}}
        """,
    "models/sources.yml": """
        sources:
          - name: raw
            schema: landing
            config:
              meta: {t2: {batch_size: hour, begin: 2024-01-01, monitor: {every: 5m}}}
            tables:
              - name: events
                description: What visitors did
                config:
                  event_time: happened_at
                  meta:
                    t2:
                      monitor: {grace: 2h, sql: "select 1 as partition"}
                      owner: [raw@example.com, ingest]
                columns:
                  - name: id
                    data_type: bigint
                    data_tests:
                      - not_null: {config: {meta: {t2: {blocks: [stg_events]}}}}
              - name: rates
                config:
                  event_time: day
                  meta: {t2: {batch_size: day, begin: "2024-01-01T13:00:00"}}
          - name: static
            schema: landing
            tables:
              - name: countries
                config: {meta: {t2: {static: true}}}
                columns:
                  - name: code
                    data_tests:
                      - relationships: {arguments: {to: ref('names'), field: code}}
        """,
    "models/groups.yml": """
        groups:
          - name: growth
            owner: {name: Growth, email: growth@example.com}
          - name: finance
            owner: {name: Finance}
        """,
    "models/staging/stg_events.sql": """
        {{ config(materialized='view', event_time='happened_at', group='finance') }}
        select * from {{ t2.window('raw', 'events') }}
        """,
    "models/staging/clean.sql": """
        {{ config(materialized='ephemeral') }}
        select * from {{ ref('stg_events') }} where {{ is_clean() }}
        """,
    "macros/is_clean.sql": "{% macro is_clean() %}{{ threshold() }} > 1{% endmacro %}",
    "macros/threshold.sql": "{% macro threshold() %}2{% endmacro %}",
    "macros/small.sql": """
        {% test small(model, most) %}select 1 from {{ model }} having count(*) > {{ most }}{% endtest %}
        """,
    "macros/relationships.sql": """
        {% macro default__test_relationships(model, column_name, to, field) %}
        select 1 from {{ model }} having count(*) = 0
        {% endmacro %}
        """,
    "models/marts/daily.sql": """
        {{ config(event_time='day', batch_size='day', begin='2024-01-02', tags=['core'],
                  meta={'t2': {'upstream': {'stg_events': {'lookback': 6}, 'daily': {'lookback': 1}}}}) }}
        -- {{ var('currency') }}
        select * from {{ ref('clean') }}
        union all select * from {{ t2.window('daily') }}
        """,
    "models/marts/weekly.sql": """
        select * from {{ t2.window('daily') }} join {{ ref('names') }} using (code)
        join {{ source('static', 'countries') }} using (code)
        """,
    "models/marts/marts.yml": """
        models:
          - name: daily
            description: One row a day
            config: {group: growth}
            columns:
              - name: day
                data_type: date
                description: The day
                data_tests:
                  - unique: {config: {meta: {t2: {scope: keys}}}}
                  - not_null: {name: "day-is-there"}
                  - accepted_values:
                      arguments: {values: [1]}
                      config: {severity: WARN, meta: {t2: {scope: table}}}
            data_tests:
              - small:
                  arguments: {most: 3}
                  config: {meta: {t2: {when: daily, at: "07:30", blocks: [total, daily]}}}
          - name: weekly
            config:
              event_time: day
              begin: 2024-01-03
              meta:
                t2:
                  batch_size: week
                  automation: manual
                  owner: growth team
                  backfill: {concurrency: 2}
                  retries: {wait: 5m}
                  isolation: table
                  pool: heavy
                  upstream: {daily: {lookback: 1}}
        """,
    "models/total.sql": """
        {{ config(materialized='table', alias='totals', schema='reports', group='finance') }}
        select * from {{ ref('weekly') }} union all select * from {{ ref('stg_events') }}
        """,
    "models/batches.sql": """
        {{ config(materialized='incremental', incremental_strategy='microbatch', event_time='happened_at',
                  batch_size='hour', begin='2024-01-01', meta={'t2': {'timezone': 'Europe/Berlin'}}) }}
        select * from {{ source('raw', 'events') }}
        """,
    "models/off.sql": "{{ config(enabled=false) }} select 1 as one",
    "seeds/names.csv": "code,name\nde,Germany\n",
    "snapshots/history.yml": """
        snapshots:
          - name: history
            relation: ref('names')
            config: {unique_key: code, strategy: check, check_cols: all}
        """,
    "tests/whole_table.sql": "select 1 from {{ ref('daily') }} join {{ ref('total') }} using (day)",
    "tests/its_window.sql": """
        {{ config(meta={'t2': {'blocks': 'none'}}) }}
        select 1 from {{ t2.window('daily') }} where false
        """,
    "tests/of_ephemeral.sql": "select 1 from {{ ref('clean') }} where false",
    "tests/of_source.sql": "{{ config(severity='warn') }} select 1 from {{ source('raw', 'events') }}",
}
