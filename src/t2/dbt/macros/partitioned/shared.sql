{# The temporary relation of the session, under a name of its own. #}
{% macro partitioned_temp(relation) %}
  {% set path = {'identifier': t2.partitioned_temp_name(relation), 'schema': none, 'database': none} %}
  {% do return(relation.incorporate(path=path, type='table')) %}
{% endmacro %}

{# A name that no other process, thread or run uses; the table's own name leads so that people can place it. #}
{% macro partitioned_temp_name(relation, build=none) %}
  {% set seed = invocation_id ~ relation ~ modules.datetime.datetime.now() ~ (range(99999) | random) ~ (range(99999) | random) %}
  {# lower case: PostgreSQL folds names that are not quoted, and dbt looks a relation's columns up by its exact name #}
  {% do return(relation.identifier[:40] | lower ~ '__t2_' ~ (build or local_md5(seed)[:12])) %}
{% endmacro %}

{#
  What the catalog holds under a name: 'table', 'view', another kind, or '' for nothing. dbt's cache may be older:
  another process may have made the table since.
#}
{% macro relation_kind(relation) %}
  {% do return(adapter.dispatch('relation_kind', 't2')(relation)) %}
{% endmacro %}

{% macro default__relation_kind(relation) %}
  {% set query %}
    select table_type from information_schema.tables
    where lower(table_catalog) = lower('{{ relation.database }}') and lower(table_schema) = lower('{{ relation.schema }}')
      and lower(table_name) = lower('{{ relation.identifier }}')
  {% endset %}
  {% set kinds = run_query(query).columns[0].values() %}
  {% do return({'BASE TABLE': 'table', 'VIEW': 'view'}.get(kinds[0], kinds[0]) if kinds else '') %}
{% endmacro %}

{% macro relation_exists(relation) %}
  {% do return(t2.relation_kind(relation) != '') %}
{% endmacro %}

{# Makes the table if there is none, in place of whatever else has its name; the caller holds a transaction. #}
{% macro partitioned_ensure(relation) %}
  {% set kind = t2.relation_kind(relation) %}
  {% if kind and kind != 'table' %}
    {% do adapter.drop_relation(relation.incorporate(type=kind)) %}
  {% endif %}
  {% if kind != 'table' %}
    {% do t2.partitioned_create(relation) %}
  {% endif %}
{% endmacro %}

{# Makes the empty table with dbt's own macro, which knows contracts, constraints and sql headers. #}
{% macro partitioned_create(relation) %}
  {% do run_query(get_create_table_as_sql(False, relation, 'select * from (' ~ sql ~ '\n) as t2_model where false')) %}
  {% do create_indexes(relation) %}
  {% do persist_docs(relation, model) %}
{% endmacro %}

{# Replaces the whole table by an empty one; the caller holds the transaction. #}
{% macro partitioned_begin_anew(relation) %}
  {% do adapter.drop_relation(relation) %}
  {% do t2.partitioned_create(relation) %}
{% endmacro %}

{# What precedes the SELECT of a temporary table: a contract is checked against the SQL, then `sql_header`. #}
{% macro partitioned_header() %}
  {% if (config.get('contract') or {}).enforced %}
    {% do get_assert_columns_equivalent(sql) %}
  {% endif %}
  {% do return(config.get('sql_header') or '') %}
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
    {% do t2.partitioned_discard(temp) %}
    {% do exceptions.raise_compiler_error(t2.partitioned_refusal(plan.window, counts)) %}
  {% endif %}
  {% do return(counts.all) %}
{% endmacro %}

{# Drops the rows that were built and are refused, where they would outlive the session. #}
{% macro partitioned_discard(temp) %}
  {% do adapter.dispatch('partitioned_discard', 't2')(temp) %}
{% endmacro %}

{% macro default__partitioned_discard(temp) %}{% endmacro %}

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

{# Brings the table's columns in line as on_schema_change says; returns the names of those to insert. #}
{% macro partitioned_columns(temp, relation) %}
  {% set on_change = incremental_validate_on_schema_change(config.get('on_schema_change'), default='ignore') %}
  {# asking for columns costs as much as writing a small partition: once each #}
  {% set old = adapter.get_columns_in_relation(relation) %}
  {% set new = adapter.get_columns_in_relation(temp) %}
  {% if t2.partitioned_columns_change(old, new, on_change) %}
    {% do t2.partitioned_lock(relation, 'columns') %}
    {% if not (config.get('contract') or {}).enforced %}
      {% do adapter.expand_target_column_types(from_relation=temp, to_relation=relation) %}
    {% endif %}
    {% do process_schema_changes(on_change, temp, relation) %}
  {% endif %}
  {% do return((old if on_change == 'ignore' else new) | map(attribute='name') | list) %}
{% endmacro %}

{# Whether there may be something to change; the lock that a change needs would make every build wait. #}
{% macro partitioned_columns_change(old_columns, new_columns, on_change) %}
  {% set old = {} %}
  {% set new = {} %}
  {% for column in old_columns %}{% do old.update({column.name: column.data_type}) %}{% endfor %}
  {% for column in new_columns %}{% do new.update({column.name: column.data_type}) %}{% endfor %}
  {% set strict = on_change in ('sync_all_columns', 'fail') %}
  {% set added = new | reject('in', old) | list %}
  {% set removed = old | reject('in', new) | list %}
  {% set retyped = [] %}
  {% for name in new if name in old and new[name] != old[name] %}{% do retyped.append(name) %}{% endfor %}
  {% set expands = not (config.get('contract') or {}).enforced %}
  {% do return((added and on_change != 'ignore') or (removed and strict) or (retyped and (expands or strict))) %}
{% endmacro %}

{#
  Keeps two transactions apart that both do something to a table, until they end: changing its columns ('columns'),
  merging ('merge'), or what follows the rows ('finish'). Always taken in this order.
#}
{% macro partitioned_lock(relation, purpose) %}
  {% do adapter.dispatch('partitioned_lock', 't2')(relation, purpose) %}
{% endmacro %}

{% macro default__partitioned_lock(relation, purpose) %}{% endmacro %}

{# What dbt does after it has built a table, inside of the transaction. #}
{% macro partitioned_finish(relation) %}
  {% do apply_grants(relation, config.get('grants'), should_revoke=True) %}
  {% if t2.partitioned_docs_differ(relation) %}
    {% do persist_docs(relation, model) %}
  {% endif %}
{% endmacro %}

{# Whether a comment has to be written: a warehouse may count one as a change that conflicts with other builds. #}
{% macro partitioned_docs_differ(relation) %}
  {% do return(adapter.dispatch('partitioned_docs_differ', 't2')(relation)) %}
{% endmacro %}

{% macro default__partitioned_docs_differ(relation) %}
  {% do return(true) %}
{% endmacro %}
