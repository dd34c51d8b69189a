{#
  PostgreSQL: advisory locks, held until the transaction ends, keep builds apart, whichever process runs them. A
  partition is locked before its query runs, so of two builds of one partition the later also reads later. The rows are
  built in a session's own temporary table that the end of the transaction, or of the process, drops.
#}
{% materialization partitioned, adapter='postgres', supported_languages=['sql'] %}
  {%- set plan = t2.partitioned_plan() -%}
  {%- set existing = load_cached_relation(this) -%}
  {%- set target_relation = this.incorporate(type='table') -%}
  {%- set temp = t2.partitioned_temp(target_relation) -%}
  {%- set committed = pre_hooks | rejectattr('transaction') | list -%}
  {% if target.autocommit %}
    {% do exceptions.raise_compiler_error(model.name ~ ": materialized='partitioned' needs transactions; remove autocommit from the profile") %}
  {% endif %}
  {{ run_hooks(pre_hooks, inside_transaction=False) }}

  {%- if existing is none or not existing.is_table -%}
    {% do t2.postgres_partitioned_ensure(target_relation, committed) %}
    {% set committed = true %}
  {%- endif -%}

  {% do t2.postgres_begin(committed) %}
  {% do t2.postgres_partitioned_lock(target_relation, plan) %}
  {{ run_hooks(pre_hooks, inside_transaction=True) }}
  {% set header = t2.partitioned_header() %}
  {% call statement('temp') %}
    {{ header }}
    create temporary table {{ temp }} on commit drop as (
      {{ sql }}
    )
  {% endcall %}
  {%- set rows = t2.partitioned_count(temp, plan) -%}
  {% if plan.whole %}
    {% do t2.partitioned_begin_anew(target_relation) %}
  {% endif %}
  {% do t2.partitioned_write(target_relation, temp, plan, rows) %}
  {% if config.get('grants') or config.persist_relation_docs() or config.persist_column_docs() or post_hooks | selectattr('transaction') | list %}
    {# PostgreSQL fails two transactions that grant or comment on one table ("tuple concurrently updated") #}
    {% do t2.partitioned_lock(target_relation, 'finish') %}
  {% endif %}
  {% do t2.partitioned_finish(target_relation) %}
  {{ run_hooks(post_hooks, inside_transaction=True) }}
  {% do adapter.commit() %}

  {{ run_hooks(post_hooks, inside_transaction=False) }}
  {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}

{# psycopg2 does not notice a COMMIT that is sent as a statement, and would run all that follows in autocommit. #}
{% macro postgres_begin(committed) %}
  {% if committed %}
    {% call statement('begin') %}begin{% endcall %}
  {% endif %}
{% endmacro %}

{# The table exists: a transaction of its own. Who loses the race waits for the lock and then finds the table. #}
{% macro postgres_partitioned_ensure(relation, committed) %}
  {% do t2.postgres_begin(committed) %}
  {% do t2.partitioned_lock(relation, 'create') %}
  {% do t2.partitioned_ensure(relation) %}
  {% do adapter.commit() %}
{% endmacro %}

{#
  Up to 400 partitions (a year of days, two weeks of hours) are locked each; more, or the whole table, all together.
  In the order of the locks' numbers, which everyone shares.
#}
{% macro postgres_partitioned_lock(relation, plan) %}
  {% set table = t2.postgres_lock_id(relation, 'table') %}
  {% set starts = t2.partitioned_starts(plan.window, 400) if plan.window and not plan.whole else [] %}
  {% call statement('lock') %}
    {% if starts %}
      select pg_advisory_xact_lock_shared({{ table }}, 0);
      select pg_advisory_xact_lock({{ t2.postgres_lock_id(relation, 'partition') }}, number) from (
        select distinct hashtext(start) as number
        from unnest(array[{% for start in starts %}'{{ start }}'{{ ', ' if not loop.last }}{% endfor %}]) as start
        order by number offset 0
      ) as numbers
    {% else %}
      select pg_advisory_xact_lock({{ table }}, 0)
    {% endif %}
  {% endcall %}
{% endmacro %}

{% macro postgres__partitioned_lock(relation, purpose) %}
  {% call statement('lock') %}select pg_advisory_xact_lock({{ t2.postgres_lock_id(relation, purpose) }}, 0){% endcall %}
{% endmacro %}

{# The first number of a lock; SQL computes it, so that a person can: see pg_locks.classid. #}
{% macro postgres_lock_id(relation, purpose) -%}
  ('x' || substr(md5('{{ (relation.render() ~ " " ~ purpose) | replace("'", "''") }}'), 1, 8))::bit(32)::int
{%- endmacro %}

{# information_schema shows no materialized views, and only what the role may use. #}
{% macro postgres__relation_kind(relation) %}
  {% set query %}
    select relkind::text from pg_class where oid = to_regclass('{{ relation.include(database=false).render() | replace("'", "''") }}')
  {% endset %}
  {% set kinds = run_query(query).columns[0].values() %}
  {% set names = {'r': 'table', 'p': 'table', 'f': 'table', 'v': 'view', 'm': 'materialized_view'} %}
  {% do return(names.get(kinds[0], kinds[0]) if kinds else '') %}
{% endmacro %}
