{#
  BigQuery: no locks, and no transaction that spans two jobs. The rows are built in a table of their own, which is
  dropped at the end and expires if nobody does. From there each partition is replaced by a copy job, which nothing can
  double, or all of them by one transaction that ends any other on the same table (bigquery_write.sql, docs/decisions/011).
#}
{% materialization partitioned, adapter='bigquery', supported_languages=['sql'] %}
  {%- set plan = t2.bigquery_plan() -%}
  {%- set existing = load_cached_relation(this) -%}
  {%- set target_relation = this.incorporate(type='table') -%}
  {%- set temp = t2.bigquery_temp(target_relation, t2.told().get('build')) -%}
  {# there are no hooks outside of a transaction here: dbt-bigquery runs the others only #}
  {{ run_hooks(pre_hooks) }}
  {% do t2.partitioned_header() %}

  {%- if existing is none or not existing.is_table -%}
    {% do t2.bigquery_ensure(target_relation, plan) %}
  {%- endif -%}
  {%- if plan.write == 'copy' and not plan.whole -%}
    {% do t2.bigquery_check_target(target_relation, plan) %}
  {%- endif -%}

  {% call statement('temp') %}{{ t2.bigquery_create('create table', temp, plan, sql, temporary=true) }}{% endcall %}
  {%- set rows = t2.partitioned_count(temp, plan) -%}
  {% if plan.whole %}
    {% do t2.bigquery_begin_anew(target_relation, temp, plan, rows) %}
  {% else %}
    {% do t2.bigquery_check_types(target_relation, temp) %}
    {% do t2.partitioned_write(target_relation, temp, plan, rows) %}
  {% endif %}
  {% do adapter.drop_relation(temp) %}
  {% do t2.partitioned_finish(target_relation) %}
  {{ run_hooks(post_hooks) }}

  {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}

{# A table beside the target; `build` is the name that T2's runtime gave this build. #}
{% macro bigquery_temp(relation, build) %}
  {% do return(relation.incorporate(path={'identifier': t2.partitioned_temp_name(relation, build)}, type='table')) %}
{% endmacro %}

{# The same rows in the columns of the target. #}
{% macro bigquery_aligned(temp) %}
  {% do return(temp.incorporate(path={'identifier': temp.identifier ~ '_aligned'})) %}
{% endmacro %}

{# What T2's runtime calls when a build has failed: drops what the build may have left. #}
{% macro bigquery_sweep(unique_id, build) %}
  {% set node = graph.nodes[unique_id] %}
  {% set relation = api.Relation.create(database=node.database, schema=node.schema, identifier=node.alias, type='table') %}
  {% set temp = t2.bigquery_temp(relation, build) %}
  {% do adapter.drop_relation(temp) %}
  {% do adapter.drop_relation(t2.bigquery_aligned(temp)) %}
{% endmacro %}

{% macro bigquery__partitioned_discard(temp) %}
  {% do adapter.drop_relation(temp) %}
{% endmacro %}

{# The table exists: who loses the race finds it. What is there is never replaced, but for a view of that name. #}
{% macro bigquery_ensure(relation, plan) %}
  {% set kind = t2.relation_kind(relation) %}
  {% if kind and kind != 'table' %}
    {% do adapter.drop_relation(relation.incorporate(type=kind)) %}
  {% endif %}
  {% if kind != 'table' %}
    {% set none_of_it = 'select * from (' ~ sql ~ '\n) as t2_model where false' %}
    {% do run_query(t2.bigquery_create('create table if not exists', relation, plan, none_of_it)) %}
  {% endif %}
{% endmacro %}

{% macro bigquery_create(how, relation, plan, query, temporary=false) %}
  {% set options = adapter.get_table_options(config, model, temporary) %}
  {% if not temporary and config.get('require_partition_filter') is not none %}
    {# dbt-bigquery sets it only beside partition_by #}
    {% do options.update({'require_partition_filter': config.get('require_partition_filter')}) %}
  {% endif %}
  {{ config.get('sql_header') or '' }}
  {{ how }} {{ relation }}
  {% if (config.get('contract') or {}).enforced %}
    {{ get_table_columns_and_constraints() }}
    {% set query = get_select_subquery(query) %}
  {% endif %}
  {% if not temporary or plan.write == 'copy' %}
    {{ partition_by(plan.by) }}
    {{ cluster_by(config.get('cluster_by')) }}
  {% endif %}
  {{ bigquery_options(options) }}
  as (
    {{ query }}
  )
{% endmacro %}

{# Replaces the whole table in one statement. #}
{% macro bigquery_begin_anew(relation, temp, plan, rows) %}
  {% if plan.strategy == 'merge' %}
    {% set columns = adapter.get_columns_in_relation(temp) | map(attribute='name') | list %}
    {% do t2.merge_check_key(temp, t2.merge_columns_named(plan.key, columns, 'unique_key')) %}
  {% endif %}
  {% if not adapter.is_replaceable(relation, plan.by, config.get('cluster_by')) %}
    {# BigQuery replaces no table by one that is partitioned in another way #}
    {% do adapter.drop_relation(relation) %}
  {% endif %}
  {% call statement('anew') %}{{ t2.bigquery_create('create or replace table', relation, plan, 'select * from ' ~ temp) }}{% endcall %}
  {% do store_raw_result('main', message=plan.strategy ~ ' ' ~ rows, code=plan.strategy, rows_affected=rows) %}
{% endmacro %}

{# One look at the catalog, which costs nothing; a query of INFORMATION_SCHEMA is billed. #}
{% macro bigquery__relation_kind(relation) %}
  {% set table = adapter.get_bq_table(relation) %}
  {% do return(table.table_type | lower if table else '') %}
{% endmacro %}

{# BigQuery allows five changes of a table's metadata in ten seconds. #}
{% macro bigquery__partitioned_docs_differ(relation) %}
  {% set table = adapter.get_bq_table(relation) %}
  {% if config.persist_relation_docs() and model.description and table.description != model.description %}
    {% do return(true) %}
  {% endif %}
  {% if config.persist_column_docs() %}
    {% set found = {} %}
    {% for field in table.schema %}{% do found.update({field.name | lower: field.description or ''}) %}{% endfor %}
    {% for column in model.columns.values() if found.get(column.name | lower, column.description) != column.description %}
      {% do return(true) %}
    {% endfor %}
  {% endif %}
  {% do return(false) %}
{% endmacro %}

{#
  A wall time as SQL. BigQuery compares a DATE with no TIMESTAMP, but takes a text for either; where the type of the
  column is not documented it is therefore a text. A TIMESTAMP is an instant.
#}
{% macro bigquery__literal(wall, type, zone) %}
  {% set type = type | lower %}
  {% if type.startswith('timestamp') %}
    {% do return("timestamp '" ~ t2.clock_instant(wall, zone).strftime('%Y-%m-%d %H:%M:%S') ~ "+00'") %}
  {% elif type.startswith('datetime') %}
    {% do return("datetime '" ~ wall.strftime('%Y-%m-%d %H:%M:%S') ~ "'") %}
  {% elif type.startswith('date') %}
    {% do return("date '" ~ t2.clock_ceiling('day', wall).strftime('%Y-%m-%d') ~ "'") %}
  {% elif zone != 'UTC' %}
    {% do exceptions.raise_compiler_error(
      model.name ~ ": a time of " ~ zone ~ " is compared with a column of unknown type. BigQuery's TIMESTAMP is an instant, "
      ~ "its DATE and DATETIME are not: give the data_type of the event_time column in YAML") %}
  {% endif %}
  {% do return("'" ~ wall.strftime('%Y-%m-%d' if wall == t2.clock_floor('day', wall) else '%Y-%m-%d %H:%M:%S') ~ "'") %}
{% endmacro %}

{% macro bigquery__own_literal(wall) %}
  {% set own = t2.own_window() if execute else none %}
  {% do return(t2.literal(wall, t2.column_type(model, model.config.event_time), own.zone if own else 'UTC')) %}
{% endmacro %}

{% macro bigquery__wall_time(column, type, zone) %}
  {% do return('datetime(' ~ column ~ ", '" ~ zone ~ "')" if type.startswith('timestamp') else 'cast(' ~ column ~ ' as datetime)') %}
{% endmacro %}

{% macro bigquery__start_of(grain, wall) %}
  {% do return('datetime_trunc(' ~ wall ~ ', ' ~ ('isoweek' if grain == 'week' else grain) ~ ')') %}
{% endmacro %}
