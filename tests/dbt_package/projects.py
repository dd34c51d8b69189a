"""The dbt project that the tests of T2's dbt package share: visits of a web site, by day."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from textwrap import dedent

NOW = datetime(2024, 6, 1, tzinfo=timezone.utc)

FILES = {
    "dbt_project.yml": """
        name: site
        version: "1.0"
        profile: site
        flags: {send_anonymous_usage_stats: false}
        models:
          site: {+materialized: partitioned, +event_time: day, +batch_size: day, +begin: 2024-01-01}
        """,
    "models/models.yml": """
        sources:
          - name: raw
            tables:
              - {name: visits, config: {event_time: day, meta: {t2: {batch_size: day, begin: 2024-01-01}}}}
              - {name: wide, config: {meta: {t2: {static: true}}}}
        models:
          - {name: replaced}
          - {name: appended, config: {incremental_strategy: append}}
          - name: visitors
            config:
              incremental_strategy: merge
              unique_key: visitor
              event_time: last_seen
              meta: {t2: {merge: {first_seen: least, most: greatest, noted: keep}}}
          - name: spans
            config:
              incremental_strategy: merge
              unique_key: [visitor, site]
              event_time: last_seen
              meta: {t2: {merge: {first_seen: least, last_seen: greatest, most: greatest}}}
            columns: [{name: visitor}, {name: site}, {name: first_seen}, {name: last_seen}, {name: most}]
          - name: undocumented
            config:
              incremental_strategy: merge
              unique_key: visitor
              event_time: last_seen
              meta: {t2: {merge: {last_seen: greatest}}}
            columns: [{name: visitor}, {name: last_seen}]
          - name: updated
            config: {incremental_strategy: merge, unique_key: visitor, merge_update_columns: [day]}
          - name: excluded
            config: {incremental_strategy: merge, unique_key: visitor, merge_exclude_columns: [SITE]}
          - {name: daily_key, config: {incremental_strategy: merge, unique_key: [day, visitor]}}
          - name: guarded
            config:
              incremental_strategy: merge
              unique_key: visitor
              incremental_predicates: ["DBT_INTERNAL_DEST.site is not null"]
          - {name: untidy, config: {incremental_strategy: append}}
          - {name: untidy_merge, config: {incremental_strategy: merge, unique_key: [visitor, site]}}
          - name: hooked
            config:
              pre_hook:
                - "insert into raw.log (hook) select 'pre inside ' || count(*) from raw.log"
                - sql: "insert into raw.log (hook) select 'pre outside ' || count(*) from raw.log"
                  transaction: false
              post_hook:
                - "insert into raw.log (hook) select 'post inside ' || count(*) from raw.log"
                - sql: "insert into raw.log (hook) select 'post outside ' || count(*) from raw.log"
                  transaction: false
          - name: hooks_fail
            config:
              pre_hook: "insert into raw.log (hook) values ('rolled back')"
              post_hook: "select 1 / 0 from raw.no_such_table"
          - {name: granted, config: {grants: {select: [reader]}}}
          - {name: ignore, config: {on_schema_change: ignore}}
          - {name: append_new, config: {on_schema_change: append_new_columns}}
          - {name: sync_all, config: {on_schema_change: sync_all_columns}}
          - {name: fail, config: {on_schema_change: fail}}
          - name: contracted
            config: {contract: {enforced: true}, incremental_strategy: append}
            constraints: [{type: check, expression: "pages >= 0", name: positive}]
            columns:
              - {name: day, data_type: date, constraints: [{type: not_null}]}
              - {name: pages, data_type: integer}
          - name: broken_contract
            config: {contract: {enforced: true}}
            columns: [{name: day, data_type: date}, {name: visits, data_type: varchar}]
          - name: documented
            description: Visits, as they came
            config: {persist_docs: {relation: true, columns: true}}
            columns: [{name: visitor, description: Who came}]
          - {name: indexed, config: {indexes: [{columns: [day]}, {columns: [day, visitor], unique: true}]}}
          - {name: headed}
          - {name: renamed, config: {alias: Mixed Case, schema: other}}
        """,
    "models/replaced.sql": "select * from {{ t2.window('raw', 'visits') }}",
    "models/appended.sql": "select * from {{ t2.window('raw', 'visits') }}",
    "models/visitors.sql": """
        select visitor, min(day) as first_seen, max(day) as last_seen, max(pages) as most,
          max(site) as site, min(day) as noted
        from {{ t2.window('raw', 'visits') }} group by visitor
        """,
    "models/spans.sql": """
        select visitor, site, min(day) as first_seen, max(day) as last_seen, max(pages) as most
        from {{ t2.window('raw', 'visits') }} group by visitor, site
        """,
    "models/undocumented.sql": """
        select visitor, max(day) as last_seen, max(site) as site
        from {{ t2.window('raw', 'visits') }} group by visitor
        """,
    "models/updated.sql": "select visitor, day, site from {{ t2.window('raw', 'visits') }}",
    "models/excluded.sql": "select visitor, day, site from {{ t2.window('raw', 'visits') }}",
    "models/daily_key.sql": "select visitor, day, site from {{ t2.window('raw', 'visits') }}",
    "models/guarded.sql": "select visitor, day, site from {{ t2.window('raw', 'visits') }}",
    "models/untidy.sql": "select * from {{ source('raw', 'visits') }}",
    "models/untidy_merge.sql": "select visitor, site, day from {{ source('raw', 'visits') }}",
    "models/hooked.sql": """
        select day, count(*) as visits, (select max(hook) from raw.log where hook like 'pre inside%') as hook
        from {{ t2.window('raw', 'visits') }} group by day
        """,
    "models/hooks_fail.sql": "select * from {{ t2.window('raw', 'visits') }}",
    "models/granted.sql": "select * from {{ t2.window('raw', 'visits') }}",
    **{
        f"models/{name}.sql": "select * from {{ source('raw', 'wide') }} where {{ t2.in_window('day') }}"
        for name in ("ignore", "append_new", "sync_all", "fail")
    },
    "models/contracted.sql": """
        select day, cast(max(pages) + min(pages) as integer) as pages
        from {{ t2.window('raw', 'visits') }} group by day
        """,
    "models/broken_contract.sql": """
        select day, count(*) as visits from {{ t2.window('raw', 'visits') }} group by day
        """,
    "models/documented.sql": "select * from {{ t2.window('raw', 'visits') }}",
    "models/indexed.sql": "select * from {{ t2.window('raw', 'visits') }}",
    "models/headed.sql": """
        {% call set_sql_header(config) %}
          {% if target.type == 'postgres' %}
            create or replace function pg_temp.twice(integer) returns integer language sql as 'select 2 * $1';
          {% else %}
            create or replace temp macro twice(x) as 2 * x;
          {% endif %}
        {% endcall %}
        select day, {{ 'pg_temp.' if target.type == 'postgres' }}twice(pages) as pages
        from {{ t2.window('raw', 'visits') }}
        """,
    "models/renamed.sql": "select * from {{ t2.window('raw', 'visits') }}",
}

RAW = [
    "create schema raw",
    "create table raw.visits (visitor integer, site varchar(10), pages integer, day date)",
    "create table raw.wide (day date, a integer, b varchar(3))",
    "create table raw.log (hook varchar(40))",
    # Two visitors on each of the first six days; the second is another one each day.
    *(
        f"insert into raw.visits values (0, 'site {day}', {day}, '2024-01-0{day}'),"
        f" ({day}, 'site 0', 1, '2024-01-0{day}')"
        for day in range(1, 7)
    ),
    *(f"insert into raw.wide values ('2024-01-0{day}', {day}, 'abc')" for day in range(1, 4)),
]


def write(root: Path, profile: str, files: dict[str, str] | None = None) -> Path:
    """Write the project with one output in its profile; `files` are added to it, or replace its own."""
    profiles = f"site: {{target: dev, outputs: {{dev: {profile}}}}}\n"
    for name, text in {**FILES, "profiles.yml": profiles, **(files or {})}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text).lstrip("\n"), "utf-8")
    return root


def days(first: int, last: int | None = None) -> list[str]:
    """Return the keys of some days of January."""
    return [f"2024-01-{day:02d}" for day in range(first, (last or first) + 1)]
