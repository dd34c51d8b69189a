{# insert_overwrite and append are one on BigQuery: an INSERT conflicts with nothing, so two builds would both be kept. #}
{% macro bigquery__partitioned_replace(relation, temp, columns, plan) %}
  {% if plan.write == 'copy' %}
    {% do t2.bigquery_copy(relation, temp, columns, plan) %}
  {% else %}
    {% do t2.partitioned_lock(relation, 'merge') %}
    {% call statement('main') %}{{ t2.bigquery_in_turn(relation, t2.bigquery_replace_sql(relation, temp, columns, plan)) }}{% endcall %}
  {% endif %}
{% endmacro %}

{#
  Replaces each partition by a copy job: free, atomic, without BigQuery's limits for statements. Of two builds of a
  partition the rows of the last one stay, all of them and no others. A partition without rows is dropped, for
  there is nothing to copy.
#}
{% macro bigquery_copy(relation, temp, columns, plan) %}
  {% set filled = t2.bigquery_filled(temp, plan.by) %}
  {% set source = t2.bigquery_align(relation, temp, columns, plan) if filled else temp %}
  {% for id in plan.ids %}
    {% set partition = relation.incorporate(path={'identifier': relation.identifier ~ '$' ~ id}) %}
    {% if id in filled %}
      {% do adapter.copy_table(source.incorporate(path={'identifier': source.identifier ~ '$' ~ id}), partition, 'table') %}
    {% else %}
      {% do adapter.drop_relation(partition) %}
    {% endif %}
  {% endfor %}
  {% if source.identifier != temp.identifier %}
    {% do adapter.drop_relation(source) %}
  {% endif %}
{% endmacro %}

{# BigQuery's names of the partitions that have rows. #}
{% macro bigquery_filled(temp, by) %}
  {% set format = {'hour': '%Y%m%d%H', 'day': '%Y%m%d', 'month': '%Y%m', 'year': '%Y'}[by.granularity | lower] %}
  {% set query %}
    select distinct format_{{ by.data_type | lower }}('{{ format }}', {{ adapter.quote(by.field) }}) as id from {{ temp }}
  {% endset %}
  {% set ids = [] %}
  {# dbt reads a text of digits as a number #}
  {% for row in run_query(query).rows %}{% do ids.append(row[0] | int | string) %}{% endfor %}
  {% do return(ids) %}
{% endmacro %}

{# What can be copied into the target: the rows as they are, or again with the target's columns in its order. #}
{% macro bigquery_align(relation, temp, columns, plan) %}
  {% set found = {} %}
  {% for column in adapter.get_columns_in_relation(temp) %}{% do found.update({column.name: column.data_type}) %}{% endfor %}
  {% set wanted = adapter.get_columns_in_relation(relation) %}
  {% set same = namespace(so=wanted | map(attribute='name') | list == found | list) %}
  {% set selected = [] %}
  {% for column in wanted %}
    {% set name = adapter.quote(column.name) %}
    {% if found.get(column.name) == column.data_type %}
      {% do selected.append(name) %}
    {% else %}
      {% set same.so = false %}
      {% set value = name if column.name in columns else 'null' %}
      {% do selected.append('cast(' ~ value ~ ' as ' ~ column.data_type ~ ') as ' ~ name) %}
    {% endif %}
  {% endfor %}
  {% if same.so %}{% do return(temp) %}{% endif %}
  {% set aligned = t2.bigquery_aligned(temp) %}
  {% call statement('aligned') %}
    create table {{ aligned }} {{ partition_by(plan.by) }} {{ cluster_by(config.get('cluster_by')) }}
    {{ bigquery_table_options(config, model, true) }}
    as (select {{ selected | join(', ') }} from {{ temp }})
  {% endcall %}
  {% do return(aligned) %}
{% endmacro %}

{# Replaces the rows of the window by one statement, whose condition lets BigQuery touch these partitions only. #}
{% macro bigquery_replace_sql(relation, temp, columns, plan) %}
  {% set names = get_quoted_csv(columns) %}
  {% set column = 'DBT_INTERNAL_DEST.' ~ t2.event_time_column(model) %}
  {% set type = t2.column_type(model, model.config.event_time) %}
  {% set conditions = [t2.column_within(column, type, plan.window) if plan.window else 'true'] %}
  {% set others = [] if plan.by.field | lower == config.get('event_time') | lower else t2.merge_filters() %}
  {% set statement %}
    merge into {{ relation }} as DBT_INTERNAL_DEST
    using (select {{ names }} from {{ temp }}) as DBT_INTERNAL_SOURCE
    on false
    when not matched by source and {{ (conditions + others) | join(' and ') }} then delete
    when not matched then insert ({{ names }}) values ({{ names }})
  {% endset %}
  {% do return(statement) %}
{% endmacro %}

{#
  Runs a statement so that of two on one table that overlap one fails ("concurrent update"), and is run again by T2's
  runtime. BigQuery itself lets two of them insert the same rows, as long as neither finds a row to change; so each
  changes the one row of a table of its own first.
#}
{% macro bigquery_in_turn(relation, statement) %}
  {% set script %}
    begin transaction;
    update {{ t2.bigquery_turn(relation) }} set builds = builds + 1 where true;
    {{ statement | trim }};
    commit transaction;
  {% endset %}
  {% do return(script) %}
{% endmacro %}

{% macro bigquery_turn(relation) %}
  {% do return(relation.incorporate(path={'identifier': relation.identifier ~ '__t2_turn'})) %}
{% endmacro %}

{# The table whose row is changed exists: a statement that makes one cannot be part of a transaction. #}
{% macro bigquery__partitioned_lock(relation, purpose) %}
  {% set turn = t2.bigquery_turn(relation) %}
  {% if purpose == 'merge' and not t2.relation_exists(turn) %}
    {% call statement('turn') %}create table if not exists {{ turn }} as select 0 as builds{% endcall %}
  {% endif %}
{% endmacro %}

{% macro bigquery__merge_sql(relation, temp, columns, key, updates) %}
  {% do return(t2.bigquery_in_turn(relation, t2.default__merge_sql(relation, temp, columns, key, updates))) %}
{% endmacro %}

{# A merge by key looks at all partitions; this is how it says so to a table with require_partition_filter. #}
{% macro bigquery__merge_filters() %}
  {% if not config.get('require_partition_filter') %}{% do return([]) %}{% endif %}
  {% set field = (config.get('partition_by') or {}).get('field') or config.get('event_time') %}
  {% set name = 'DBT_INTERNAL_DEST.' ~ adapter.quote(field) %}
  {% do return(['(' ~ name ~ ' is null or ' ~ name ~ ' is not null)']) %}
{% endmacro %}

{# The table is partitioned so that its partitions can be copied into; raises if not. #}
{% macro bigquery_check_target(relation, plan) %}
  {% set table = adapter.get_bq_table(relation) %}
  {% set cut = table.time_partitioning if table else none %}
  {% set by = plan.by %}
  {% if table and (not cut or not cut.field or cut.field | lower != by.field | lower or cut.type_ | lower != by.granularity | lower) %}
    {% do exceptions.raise_compiler_error(
      model.name ~ ": " ~ relation ~ " is " ~ ('partitioned by ' ~ cut.type_ | lower ~ ' of ' ~ (cut.field or 'the time of writing') if cut else 'not partitioned')
      ~ ", and has to be by " ~ by.granularity ~ " of " ~ by.field ~ ". Run `dbt run --full-refresh`, or set meta.t2.bigquery.write: merge") %}
  {% endif %}
{% endmacro %}

{# Raises if on_schema_change would change a type: dbt-bigquery then writes the whole table anew, and loses what others build. #}
{% macro bigquery_check_types(relation, temp) %}
  {% if config.get('on_schema_change') == 'sync_all_columns' %}
    {% set old = {} %}
    {% for column in adapter.get_columns_in_relation(relation) %}{% do old.update({column.name: column.data_type}) %}{% endfor %}
    {% for column in adapter.get_columns_in_relation(temp) if old.get(column.name, column.data_type) != column.data_type %}
      {% do t2.partitioned_discard(temp) %}
      {% do exceptions.raise_compiler_error(
        model.name ~ ": the type of " ~ column.name ~ " is " ~ old[column.name] ~ " in the table and " ~ column.data_type
        ~ " in the SQL. BigQuery changes a type by writing the whole table anew: run `dbt run --full-refresh`") %}
    {% endfor %}
  {% endif %}
{% endmacro %}
