"""One project with every mistake that T2 reports itself, each in a place of its own."""

WRONG = {
    "dbt_project.yml": """
        name: shop
        version: "1.0"
        profile: shop
        flags: {send_anonymous_usage_stats: false}
        models:
          shop:
            folder:
              +meta:
                t2: {timezone: Europe/Berln}
        """,
    "models/sources.yml": """
        sources:
          - name: raw
            tables:
              - name: untimed
              - name: no_size
                config: {event_time: t}
              - name: no_begin
                config:
                  event_time: t
                  meta:
                    t2:
                      batch_size: day
              - name: both
                config:
                  event_time: t
                  meta: {t2: {static: true, batch_size: day, begin: 2024-01-01}}
              - name: unmonitored
                config:
                  meta:
                    t2:
                      static: true
                      monitor:
                        evry: 5m
                        grace: soon
        """,
    "models/again.yml": """
        sources:
          - name: again
            schema: raw
            tables:
              - name: renamed
                identifier: untimed
        """,
    "models/models.yml": """
        models:
          - name: whole
          - name: unknown_key
            config:
              meta:
                t2:
                  backfil: {concurrency: 2}
                  materialized: table
          - name: bad_value
            config:
              meta:
                t2:
                  automation: manul
                  backfill:
                    partitions_per_run: 0
                  retries: {wait: 5 minutes}
                  upstream: [whole]
          - name: begin_missing
            config:
              event_time: t
              batch_size: day
          - name: begin_in_the_future
            config:
              event_time: t
              batch_size: day
              begin: 2999-01-01
          - name: time_missing
            config:
              batch_size: day
              begin: 2024-01-01
          - name: whole_table
            config: {materialized: table, event_time: t, batch_size: day, begin: 2024-01-01}
          - name: grain_unknown
            config: {event_time: t, batch_size: minute, begin: 2024-01-01}
          - name: begin_unreadable
            config: {event_time: t, batch_size: day, begin: yesterday}
          - name: microbatch_in_berlin
            config:
              materialized: incremental
              incremental_strategy: microbatch
              event_time: t
              batch_size: day
              begin: 2024-01-01
              meta: {t2: {timezone: Europe/Berlin}}
          - name: windows
            config:
              event_time: t
              batch_size: day
              begin: 2024-01-01
              meta:
                t2:
                  upstream:
                    whole: {lookback: 3}
                    god: {lookback: 1}
                    good: {lookback: -1}
          - name: unpartitioned
            config:
              materialized: table
              meta: {t2: {upstream: {good: {lookback: 1}}}}
          - name: good
            config: {event_time: t, batch_size: day, begin: 2024-01-01}
            columns:
              - name: t
                data_tests:
                  - not_null:
                      config:
                        meta:
                          t2:
                            scope: row
                  - unique:
                      config:
                        severity: warn
                        meta:
                          t2:
                            when: dayly
                            at: "7:30"
                            blocks: [whole]
                  - accepted_values:
                      arguments: {values: [1]}
                      config:
                        meta:
                          t2:
                            at: 12:30
                            blocks: [unpartitoned, windows]
                            scope: keys
          - name: reader
            config: {event_time: t, batch_size: day, begin: 2024-01-01}
        """,
    "models/whole.sql": "{{ config(materialized='table') }} select 1 as t",
    "models/unknown_key.sql": "{{ config(materialized='table') }} select 1 as t",
    "models/bad_value.sql": "{{ config(materialized='table') }} select 1 as t",
    "models/begin_missing.sql": "{{ config(materialized='partitioned') }} select 1 as t",
    "models/begin_in_the_future.sql": "{{ config(materialized='partitioned') }} select 1 as t",
    "models/time_missing.sql": "{{ config(materialized='partitioned') }} select 1 as t",
    "models/whole_table.sql": "select 1 as t",
    "models/grain_unknown.sql": "{{ config(materialized='partitioned') }} select 1 as t",
    "models/begin_unreadable.sql": "{{ config(materialized='partitioned') }} select 1 as t",
    "models/microbatch_in_berlin.sql": "select * from {{ ref('good') }}",
    "models/good.sql": "{{ config(materialized='partitioned') }} select 1 as t",
    "models/plain_view.sql": "{{ config(materialized='view') }} select * from {{ ref('good') }}",
    "models/windows.sql": """
        {{ config(materialized='partitioned') }}
        select * from {{ t2.window('whole') }}
        union all select * from {{ t2.window('good') }}
        union all select * from {{ t2.window('windows') }}
        union all select * from {{ t2.window('plain_view') }}
        {# union all select * from {{ t2.window('windows') }} #}
        """,
    "models/in_sql.sql": """
        {{ config(
            materialized='table',
            meta={
                't2': {
                    'retries': {
                        'attempts': -1,
                    },
                },
            },
        ) }}
        select 1 as t
        """,
    "models/unpartitioned.sql": "select * from {{ ref('good') }}",
    "models/folder/far_away.sql": "{{ config(materialized='table') }} select 1 as t",
    "models/reader.sql": """
        {{ config(materialized='partitioned') }}
        select * from {{ source('raw', 'untimed') }}
        union all select * from {{ source('raw', 'no_size') }}
        union all select * from {{ source('raw', 'no_begin') }}
        union all select * from {{ source('raw', 'both') }}
        union all select * from {{ source('raw', 'unmonitored') }}
        """,
    "models/around.sql": "select * from {{ ref('about') }}",
    "models/about.sql": "select * from {{ ref('around') }}",
}
