{# What the `partitioned` materialization is told: {condition, grain, window, whole}; raises on bad settings. #}
{% macro partitioned_plan() %}
  {% set cut = t2.cut_of(model) %}
  {% set told = t2.told() %}
  {% set needed = {'event_time': cut.event_time, 'batch_size': cut.grain or told, 'begin': cut.begin or told} %}
  {% for name, value in needed.items() if not value %}
    {% do exceptions.raise_compiler_error("materialized='partitioned' needs the config " ~ name ~ ": " ~ model.name) %}
  {% endfor %}
  {% set strategy = config.get('incremental_strategy') or 'insert_overwrite' %}
  {% if strategy != 'insert_overwrite' %}
    {% do exceptions.raise_compiler_error(
      "materialized='partitioned' does not know incremental_strategy='" ~ strategy ~ "' on " ~ adapter.type()
      ~ ": use 'insert_overwrite'") %}
  {% endif %}
  {% set window = t2.own_window() %}
  {% do return({'window': window, 'condition': t2.within(model, window) if window else '1 = 1',
                'whole': should_full_refresh() and not told and var('t2_start', none) is none}) %}
{% endmacro %}

{# A name that no other process, thread or run uses; the table's own name leads so that people can place it. #}
{% macro partitioned_temp(relation) %}
  {% set seed = invocation_id ~ relation ~ modules.datetime.datetime.now() ~ (range(99999) | random) ~ (range(99999) | random) %}
  {% set name = relation.identifier[:40] ~ '__t2_' ~ local_md5(seed)[:12] %}
  {% do return(relation.incorporate(path={'identifier': name, 'schema': none, 'database': none}, type='table')) %}
{% endmacro %}

{# Asks the catalog, not dbt's cache: another process may have made the table since the cache was filled. #}
{% macro relation_exists(relation) %}
  {% set query %}
    select count(*) from information_schema.tables
    where lower(table_catalog) = lower('{{ relation.database }}') and lower(table_schema) = lower('{{ relation.schema }}')
      and lower(table_name) = lower('{{ relation.identifier }}')
  {% endset %}
  {% do return(run_query(query).columns[0].values()[0] | int > 0) %}
{% endmacro %}

{# Makes the empty table with dbt's own macro, which knows contracts, constraints and sql headers. #}
{% macro partitioned_create(relation) %}
  {% do run_query(get_create_table_as_sql(False, relation, 'select * from (' ~ sql ~ '\n) as t2_model where false')) %}
  {% do create_indexes(relation) %}
{% endmacro %}

{# Counts the built rows; raises if one lies outside of the window or has no event time. #}
{% macro partitioned_count(temp, plan) %}
  {% set column = t2.event_time_column(model) %}
  {% set query %}
    select count(*), sum(case when {{ column }} is not null and {{ plan.condition }} then 0 else 1 end),
      count(*) - count({{ column }})
    from {{ temp }}
  {% endset %}
  {% set row = run_query(query).rows[0] %}
  {% set counts = {'all': row[0] | int, 'refused': (row[1] or 0) | int, 'untimed': row[2] | int} %}
  {% if counts.refused %}
    {% do exceptions.raise_compiler_error(t2.partitioned_refusal(plan.window, counts)) %}
  {% endif %}
  {% do return(counts.all) %}
{% endmacro %}

{% macro partitioned_refusal(window, counts) %}
  {% set column = config.get('event_time') %}
  {% set untimed = 'for ' ~ counts.untimed ~ ' of them ' ~ column ~ ' is null' %}
  {% if counts.untimed == counts.refused %}
    {% set why = column ~ ' is null' %}
  {% else %}
    {% set why = column ~ ' is outside of [' ~ window.start ~ ', ' ~ window.end ~ ')'
                 ~ (' (' ~ untimed ~ ')' if counts.untimed else '') %}
  {% endif %}
  {% do return(model.name ~ ': ' ~ counts.refused ~ ' of ' ~ counts.all ~ ' rows refused, nothing written: ' ~ why
               ~ ". Filter them in the SQL, with t2.in_window('" ~ column ~ "') for instance") %}
{% endmacro %}

{# Brings the table's columns in line as on_schema_change says; returns the columns to insert, quoted. #}
{% macro partitioned_columns(temp, relation) %}
  {% set on_change = incremental_validate_on_schema_change(config.get('on_schema_change'), default='ignore') %}
  {% if not (config.get('contract') or {}).enforced %}
    {% do adapter.expand_target_column_types(from_relation=temp, to_relation=relation) %}
  {% endif %}
  {% set changed = process_schema_changes(on_change, temp, relation) %}
  {% do return(get_quoted_csv((changed or adapter.get_columns_in_relation(relation)) | map(attribute='name'))) %}
{% endmacro %}

{# Replaces the window's rows; the caller holds the transaction. #}
{% macro partitioned_replace(relation, temp, columns, plan, rows) %}
  {% call statement('delete') %}
    delete from {{ relation }}
    {%- if not plan.whole %} where {{ plan.condition }}{% endif %}
  {% endcall %}
  {% call statement('main') %}
    insert into {{ relation }} ({{ columns }}) select {{ columns }} from {{ temp }}
  {% endcall %}
  {% do store_raw_result('main', message='INSERT 0 ' ~ rows, code='INSERT', rows_affected=rows) %}
{% endmacro %}

{# What dbt does after it has built a table, inside of the transaction. #}
{% macro partitioned_finish(relation, existed) %}
  {% do apply_grants(relation, config.get('grants'), should_revoke=should_revoke(relation if existed else none, not existed)) %}
  {% do persist_docs(relation, model) %}
{% endmacro %}
