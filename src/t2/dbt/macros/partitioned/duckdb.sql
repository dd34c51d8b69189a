{#
  DuckDB: one process holds the file. Its threads build different partitions at once; the loser of a conflict
  (creating the table, the same rows) gets an error with "onflict" in it, and T2's runtime runs the node again.
  Builds of the same partition are kept apart by T2's runtime: two inserts into an empty partition do not conflict here.
#}
{% materialization partitioned, adapter='duckdb', supported_languages=['sql'] %}
  {%- set plan = t2.partitioned_plan() -%}
  {%- set existing = load_cached_relation(this) -%}
  {%- set target_relation = this.incorporate(type='table') -%}
  {%- set temp = t2.partitioned_temp(target_relation) -%}
  {{ run_hooks(pre_hooks, inside_transaction=False) }}

  {%- if existing is not none and not existing.is_table -%}
    {% do adapter.drop_relation(existing) %}
    {%- set existing = none -%}
  {%- endif -%}
  {%- if existing is none and not t2.relation_exists(target_relation) -%}
    {% do t2.partitioned_create(target_relation) %}
  {%- endif -%}

  {# a temporary table belongs to the connection: closing it, as dbt does after a failed node, drops the table #}
  {% call statement('temp', auto_begin=False) %}
    create temporary table {{ temp }} as (
      {{ sql }}
    )
  {% endcall %}
  {%- set rows = t2.partitioned_count(temp, plan) -%}

  {% do adapter.ensure_transaction() %}
  {{ run_hooks(pre_hooks, inside_transaction=True) }}
  {% if plan.whole %}
    {% do adapter.drop_relation(target_relation) %}
    {% do t2.partitioned_create(target_relation) %}
  {% endif %}
  {%- set columns = t2.partitioned_columns(temp, target_relation) -%}
  {% do t2.partitioned_replace(target_relation, temp, columns, plan, rows) %}
  {% do t2.partitioned_finish(target_relation, existing is not none and not plan.whole) %}
  {{ run_hooks(post_hooks, inside_transaction=True) }}
  {% do adapter.commit() %}

  {% do run_query('drop table ' ~ temp) %}
  {{ run_hooks(post_hooks, inside_transaction=False) }}
  {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}
