"""What the shared dbt project has more on BigQuery, and its raw tables there."""

from __future__ import annotations

from tests.dbt_package.projects import RAW

MODELS = {
    "models/bigquery.yml": """
        sources:
          - name: raw
            tables:
              - name: events
                loaded_at_field: loaded
                config:
                  event_time: seen_at
                  meta: {t2: {batch_size: day, begin: 2024-01-01, timezone: Europe/Berlin}}
                columns: [{name: seen_at, data_type: timestamp}]
        models:
          - name: filtered
            config:
              require_partition_filter: true
              partition_by: {field: day, data_type: date}
              cluster_by: [site, visitor]
              labels: {team: growth}
            columns:
              - {name: day, data_type: date, data_tests: [not_null]}
              - name: visitor
                data_tests:
                  - unique: {config: {meta: {t2: {scope: keys}}}}
                  - accepted_values: {arguments: {values: [0, 1, 2, 3, 4, 5, 6], quote: false}}
          - name: filtered_in_turn
            config: {require_partition_filter: true, meta: {t2: {bigquery: {write: merge}}}}
            columns: [{name: day, data_type: date}]
          - name: filtered_visitors
            config:
              require_partition_filter: true
              incremental_strategy: merge
              unique_key: visitor
              event_time: last_seen
              meta: {t2: {merge: {last_seen: greatest}}}
            columns: [{name: visitor}, {name: last_seen, data_type: date}]
          - name: hourly
            config: {event_time: seen_at, batch_size: hour}
            columns: [{name: seen_at, data_type: timestamp}]
          - name: berlin
            config: {event_time: seen_at, meta: {t2: {timezone: Europe/Berlin}}}
            columns: [{name: seen_at, data_type: timestamp}]
          - {name: weekly, config: {meta: {t2: {batch_size: week}}}}
          - {name: weekly_copied, config: {meta: {t2: {batch_size: week, bigquery: {write: copy}}}}}
          - name: by_month
            config: {partition_by: {field: day, data_type: date, granularity: month}}
          - name: by_visitor
            config:
              require_partition_filter: true
              partition_by: {field: visitor, data_type: int64, range: {start: 0, end: 100, interval: 1}}
          - name: big_contract
            config: {contract: {enforced: true}}
            columns:
              - {name: day, data_type: date, constraints: [{type: not_null}]}
              - {name: pages, data_type: int64}
          - name: big_hooks
            config:
              pre_hook: "insert into raw.log (hook) values ('pre')"
              post_hook: "insert into raw.log (hook) values ('post')"
          - {name: big_header}
          - name: itself
            config: {meta: {t2: {upstream: {itself: {lookback: 1}}}}}
            columns: [{name: day, data_type: date}, {name: visits, data_type: int64}]
        """,
    **{
        f"models/{name}.sql": "select day, visitor, site from {{ t2.window('raw', 'visits') }}"
        for name in (
            *("filtered", "filtered_in_turn", "weekly", "weekly_copied", "by_month", "by_visitor"),
            "big_hooks",
        )
    },
    "models/filtered_visitors.sql": """
        select visitor, max(day) as last_seen from {{ t2.window('filtered') }} group by visitor
        """,
    "models/hourly.sql": """
        select seen_at, id, {{ t2.start() }} as since, {{ t2.start_date() }} as since_date
        from {{ source('raw', 'events') }} where {{ t2.in_window('seen_at') }}
        """,
    "models/berlin.sql": "select seen_at, id from {{ t2.window('raw', 'events') }}",
    "models/big_contract.sql": """
        select day, max(pages) as pages from {{ t2.window('raw', 'visits') }} group by day
        """,
    "models/big_header.sql": """
        {% call set_sql_header(config) %}create temp function twice(x int64) as (2 * x);{% endcall %}
        select day, pages from {{ t2.window('raw', 'visits') }}
        """,
    "models/itself.sql": """
        select day, count(*) + (select coalesce(max(visits), 0) from {{ t2.window('itself') }}) as visits
        from {{ t2.window('raw', 'visits') }} group by day
        """,
}

TYPES = {"varchar(10)": "string", "varchar(3)": "string", "varchar(40)": "string", "integer": "int64"}


def _renamed(statement: str) -> str:
    for name, type_ in TYPES.items():
        statement = statement.replace(name, type_)
    return statement


SOURCES = [
    *(_renamed(statement) for statement in RAW),
    "create table raw.events (seen_at timestamp, id int64, loaded timestamp)",
    # Hours of two nights, in UTC: the first is still the 31st in Berlin's clock.
    *(
        f"insert into raw.events values (timestamp '{at}+00', {number}, timestamp '2024-01-05 00:00:00+00')"
        for number, at in enumerate(
            ("2023-12-31 22:30:00", "2023-12-31 23:30:00", "2024-01-01 22:30:00", "2024-01-01 23:30:00")
        )
    ),
]
