{#
  What authors call. A model's window comes from, in this order: T2's runtime (the var `t2`), the current batch of a
  dbt microbatch model, the vars `t2_start` and `t2_end`, dbt microbatch's own default (`own_window` in own_window.sql).
#}

{# The rows of an upstream that the model's window reads: `t2.window('model')`, `t2.window('source', 'table')`. #}
{% macro window(name, table=none, version=none) -%}
  {%- if table is none and name == model.name -%}
    {{- return(t2.window_of_itself() if execute else this.render()) -}}
  {%- endif -%}
  {#- ref() and source() are called while parsing too: that is how dbt learns of the dependency -#}
  {%- if table is not none -%}
    {%- set relation = source(name, table) -%}
  {%- elif version is not none -%}
    {%- set relation = ref(name, version=version) -%}
  {%- else -%}
    {%- set relation = ref(name) -%}
  {%- endif -%}
  {#- render(): str(relation) carries dbt's own event-time filter in a microbatch model, which knows no lookback -#}
  {%- set rendered = relation.render() if relation.limit is none else relation.render_limited() -%}
  {%- set node = t2.upstream_node(name, table) if execute else none -%}
  {%- set found = t2.upstream_window(node) if node is not none else none -%}
  {%- if found is none -%}
    {{- return(rendered) -}}
  {%- endif -%}
  {{- return('(select * from ' ~ rendered ~ ' where ' ~ t2.within(node, found) ~ ')') -}}
{%- endmacro %}

{# The start of the model's window as a timestamp literal, on the table's own clock. #}
{% macro start() -%}
  {{- t2.own_literal(t2.window_or_error('start').start) -}}
{%- endmacro %}

{# The end of the model's window (excluded) as a timestamp literal, on the table's own clock. #}
{% macro end() -%}
  {{- t2.own_literal(t2.window_or_error('end').end) -}}
{%- endmacro %}

{# The start of the model's window as a date literal. #}
{% macro start_date() -%}
  {{- "cast('" ~ t2.window_or_error('start_date').start.strftime('%Y-%m-%d') ~ "' as date)" -}}
{%- endmacro %}

{# The end of the model's window (excluded) as a date literal. #}
{% macro end_date() -%}
  {{- "cast('" ~ t2.window_or_error('end_date').end.strftime('%Y-%m-%d') ~ "' as date)" -}}
{%- endmacro %}

{# Whether a column lies in the model's window, as a boolean expression; true for a model without a window. #}
{% macro in_window(column) -%}
  {%- set own = t2.own_window() if execute else none -%}
  {%- if own is none -%}
    {{- return('(true)') -}}
  {%- endif -%}
  {{- return('(' ~ column ~ ' >= ' ~ t2.own_literal(own.start) ~ ' and ' ~ column ~ ' < ' ~ t2.own_literal(own.end) ~ ')') -}}
{%- endmacro %}

{% macro window_or_error(asked) %}
  {% if not execute %}
    {% do return({'start': t2.clock_parse('2000-01-01'), 'end': t2.clock_parse('2000-01-02')}) %}
  {% endif %}
  {% set own = t2.own_window() %}
  {% if own is none %}
    {% do exceptions.raise_compiler_error(
      "t2." ~ asked ~ "(): " ~ model.name ~ " has no window. It needs event_time, batch_size and begin, and a "
      ~ "materialization that keeps its partitions (partitioned or incremental)") %}
  {% endif %}
  {% do return(own) %}
{% endmacro %}
