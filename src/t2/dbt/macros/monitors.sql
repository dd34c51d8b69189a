{# What T2's monitors ask of a source table (runtime/monitors.py); called with the source's unique id. #}

{% macro monitor_relation(unique_id) %}
  {% set node = graph.sources[unique_id] %}
  {% do return(api.Relation.create(database=node.database, schema=node.schema, identifier=node.identifier)) %}
{% endmacro %}

{% macro monitor_exists(unique_id) %}
  {% do return(t2.relation_exists(t2.monitor_relation(unique_id))) %}
{% endmacro %}

{# The type of a column in the warehouse, in lower case; '' if there is no such column. #}
{% macro monitor_type(unique_id, column) %}
  {% for found in adapter.get_columns_in_relation(t2.monitor_relation(unique_id)) if found.name | lower == column | lower %}
    {% do return(found.data_type | lower) %}
  {% endfor %}
  {% do return('') %}
{% endmacro %}

{# One row a partition that has rows from `since` (a wall time) on: its start, rows, newest event time, last load. #}
{% macro monitor_query(unique_id, column, type, grain, zone, since, loaded_at) %}
  {% set node = graph.sources[unique_id] %}
  {% set column = t2.quoted_column(node, column) %}
  {% set wall = adapter.dispatch('wall_time', 't2')(column, type, zone) %}
  {% set partition = adapter.dispatch('start_of', 't2')(grain, wall) %}
  {% set query %}
    select {{ partition }} as t2_partition, count(*) as t2_rows, max({{ wall }}) as t2_newest,
      {{ 'max(' ~ loaded_at ~ ')' if loaded_at else 'null' }} as t2_loaded
    from {{ node.relation_name }}
    where {{ column }} >= {{ t2.literal(t2.clock_parse(since), type, zone) }}
    group by 1
  {% endset %}
  {% do return(query) %}
{% endmacro %}

{# An event time as wall time of a zone. #}
{% macro default__wall_time(column, type, zone) %}
  {% set aware = type.startswith('timestamptz') or 'with time zone' in type %}
  {% do return(column ~ " at time zone '" ~ zone ~ "'" if aware else 'cast(' ~ column ~ ' as timestamp)') %}
{% endmacro %}

{# The start of the hour, day, week, month or year of a wall time. #}
{% macro default__start_of(grain, wall) %}
  {% do return("date_trunc('" ~ grain ~ "', " ~ wall ~ ')') %}
{% endmacro %}
