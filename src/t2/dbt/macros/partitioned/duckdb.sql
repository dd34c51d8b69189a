{#
  DuckDB: one process holds the file. Its threads build different partitions at once; the loser of a conflict
  (creating the table, merging, the same rows) gets an error with "onflict" in it, and T2's runtime runs the node again.
  Builds of the same partition are kept apart by T2's runtime: two inserts into an empty partition do not conflict here.
#}
{% materialization partitioned, adapter='duckdb', supported_languages=['sql'] %}
  {%- set plan = t2.partitioned_plan() -%}
  {%- set existing = load_cached_relation(this) -%}
  {%- set target_relation = this.incorporate(type='table') -%}
  {%- set temp = t2.partitioned_temp(target_relation) -%}
  {{ run_hooks(pre_hooks, inside_transaction=False) }}

  {%- if existing is none or not existing.is_table -%}
    {% do adapter.ensure_transaction() %}
    {% do t2.partitioned_ensure(target_relation) %}
    {% do adapter.commit() %}
  {%- endif -%}

  {# The transaction begins here only if there are hooks for it: the shorter it is, the fewer the conflicts. #}
  {{ run_hooks(pre_hooks, inside_transaction=True) }}
  {% set header = t2.partitioned_header() %}
  {# a temporary table belongs to the connection: closing it, as dbt does after a failed node, drops the table #}
  {% call statement('temp', auto_begin=False) %}
    {{ header }}
    create temporary table {{ temp }} as (
      {{ sql }}
    )
  {% endcall %}
  {%- set rows = t2.partitioned_count(temp, plan) -%}

  {% do adapter.ensure_transaction() %}
  {% if plan.whole %}
    {% do t2.partitioned_begin_anew(target_relation) %}
  {% endif %}
  {% do t2.partitioned_write(target_relation, temp, plan, rows) %}
  {% do t2.partitioned_finish(target_relation) %}
  {{ run_hooks(post_hooks, inside_transaction=True) }}
  {% do adapter.commit() %}

  {% do run_query('drop table ' ~ temp) %}
  {{ run_hooks(post_hooks, inside_transaction=False) }}
  {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}

{#
  Makes two transactions conflict that overlap: DuckDB has no locks, and two inserts of one new key would both stay. The
  table is made and dropped in the transaction, so nobody ever sees it and a killed process leaves none. Columns and
  comments are in the catalog, where DuckDB finds the conflict itself.
#}
{% macro duckdb__partitioned_lock(relation, purpose) %}
  {% if purpose == 'merge' %}
    {% set marker = relation.incorporate(path={'identifier': relation.identifier ~ '__t2_merge'}) %}
    {% call statement('lock') %}create table {{ marker }} (x integer); drop table {{ marker }}{% endcall %}
  {% endif %}
{% endmacro %}

{# A comment changes the catalog's entry of the table, which fails every other build that writes to it. #}
{% macro duckdb__partitioned_docs_differ(relation) %}
  {% set wanted = {} %}
  {% if config.persist_relation_docs() and model.description %}
    {% do wanted.update({'': model.description}) %}
  {% endif %}
  {% if config.persist_column_docs() %}
    {% for column in model.columns.values() %}{% do wanted.update({column.name | lower: column.description}) %}{% endfor %}
  {% endif %}
  {% if not wanted %}{% do return(false) %}{% endif %}
  {% set place = "lower(database_name) = lower('" ~ relation.database ~ "') and lower(schema_name) = lower('" ~ relation.schema
                 ~ "') and lower(table_name) = lower('" ~ relation.identifier ~ "')" %}
  {% set query %}
    select '' as name, comment from duckdb_tables() where {{ place }}
    union all
    select lower(column_name), comment from duckdb_columns() where {{ place }}
  {% endset %}
  {% set found = {} %}
  {% for row in run_query(query).rows %}{% do found.update({row[0] or '': row[1] or ''}) %}{% endfor %}
  {% for name, comment in wanted.items() if name in found and found[name] != comment %}
    {% do return(true) %}
  {% endfor %}
  {% do return(false) %}
{% endmacro %}
