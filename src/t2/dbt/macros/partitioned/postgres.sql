{#
  PostgreSQL: advisory locks keep builds of the same partition apart, whichever process runs them. The expensive query
  runs before any lock is taken, into a session's own temporary table that the end of the transaction drops.
#}
{% materialization partitioned, adapter='postgres', supported_languages=['sql'] %}
  {%- set plan = t2.partitioned_plan() -%}
  {%- set existing = load_cached_relation(this) -%}
  {%- set target_relation = this.incorporate(type='table') -%}
  {%- set temp = t2.partitioned_temp(target_relation) -%}
  {{ run_hooks(pre_hooks, inside_transaction=False) }}

  {%- if existing is none or not existing.is_table -%}
    {% do t2.postgres_partitioned_ensure(target_relation, existing) %}
  {%- endif -%}

  {{ run_hooks(pre_hooks, inside_transaction=True) }}
  {% call statement('temp') %}
    create temporary table {{ temp }} on commit drop as (
      {{ sql }}
    )
  {% endcall %}
  {%- set rows = t2.partitioned_count(temp, plan) -%}

  {% do t2.postgres_partitioned_lock(target_relation, plan) %}
  {% if plan.whole %}
    {% do adapter.drop_relation(target_relation) %}
    {% do t2.partitioned_create(target_relation) %}
  {% endif %}
  {%- set columns = t2.partitioned_columns(temp, target_relation) -%}
  {% do t2.partitioned_replace(target_relation, temp, columns, plan, rows) %}
  {% do t2.partitioned_finish(target_relation, existing is not none and not plan.whole) %}
  {{ run_hooks(post_hooks, inside_transaction=True) }}
  {% do adapter.commit() %}

  {{ run_hooks(post_hooks, inside_transaction=False) }}
  {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}

{# The table exists: a transaction of its own. Who loses the race waits for the lock and then finds the table. #}
{% macro postgres_partitioned_ensure(relation, existing) %}
  {% call statement('ensure') %}select pg_advisory_xact_lock({{ t2.postgres_partitioned_id(relation) }}, 0){% endcall %}
  {% if existing is not none %}
    {% do adapter.drop_relation(existing) %}
  {% endif %}
  {% if not t2.relation_exists(relation) %}
    {% do t2.partitioned_create(relation) %}
  {% endif %}
  {% do adapter.commit() %}
  {# psycopg2 does not notice the COMMIT that dbt sends as a statement: without this the rest would run in autocommit #}
  {% call statement('begin') %}begin{% endcall %}
{% endmacro %}

{# Up to 64 partitions are locked one by one, sorted; more, or the whole table, by the table's own lock. #}
{% macro postgres_partitioned_lock(relation, plan) %}
  {% set id = t2.postgres_partitioned_id(relation) %}
  {% set starts = t2.partitioned_starts(plan.window, 64) if plan.window and not plan.whole else [] %}
  {% call statement('lock') %}
    {%- if starts -%}
      select pg_advisory_xact_lock_shared({{ id }}, 0);
      {%- for start in starts %} select pg_advisory_xact_lock({{ id }}, hashtext('{{ start }}'));{% endfor %}
    {%- else -%}
      select pg_advisory_xact_lock({{ id }}, 0)
    {%- endif -%}
  {% endcall %}
{% endmacro %}

{# The starts of a window's partitions, in order; [] if there are more than `most`. #}
{% macro partitioned_starts(window, most) %}
  {% set found = namespace(at=t2.clock_floor(window.grain, window.start), starts=[]) %}
  {% for _ in range(most + 1) if found.at < window.end %}
    {% do found.starts.append(found.at) %}
    {% set found.at = t2.clock_shift(window.grain, found.at, 1) %}
  {% endfor %}
  {% do return(found.starts if found.starts | length <= most else []) %}
{% endmacro %}

{% macro postgres_partitioned_id(relation) -%}
  ('x' || substr(md5('{{ relation.render() | replace("'", "''") }}'), 1, 8))::bit(32)::int
{%- endmacro %}
