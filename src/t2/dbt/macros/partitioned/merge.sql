{#
  The rows of a merge replace, column by column, those with the same key. Rules (meta.t2.merge):
    least, greatest  the smaller or greater of both values; a null never wins
    replace          the new value, unless the table's row is of a later event time
    keep             the table's value

  Two merges of one table take turns: each sees what the one before has written.
#}
{% macro partitioned_merge(relation, temp, columns, plan) %}
  {% set key = t2.merge_columns_named(plan.key, columns, 'unique_key') %}
  {% do t2.merge_check_key(temp, key) %}
  {% do t2.partitioned_lock(relation, 'merge') %}
  {% set updates = t2.merge_updates(columns, key) %}
  {% call statement('main') %}
    {{ t2.merge_sql(relation, temp, columns, key, updates) }}
  {% endcall %}
{% endmacro %}

{% macro merge_sql(relation, temp, columns, key, updates) %}
  {% do return(adapter.dispatch('merge_sql', 't2')(relation, temp, columns, key, updates)) %}
{% endmacro %}

{% macro default__merge_sql(relation, temp, columns, key, updates) %}
  {% set conditions = [] %}
  {% for column in key %}
    {% set name = adapter.quote(column) %}
    {% do conditions.append('DBT_INTERNAL_DEST.' ~ name ~ ' = DBT_INTERNAL_SOURCE.' ~ name) %}
  {% endfor %}
  {% set predicates = config.get('incremental_predicates') or config.get('predicates') or [] %}
  {% set conditions = conditions + ([predicates] if predicates is string else predicates) + t2.merge_filters() %}
  {% set statement %}
    merge into {{ relation }} as DBT_INTERNAL_DEST
    using {{ temp }} as DBT_INTERNAL_SOURCE
    on ({{ conditions | join(') and (') }})
    {% if updates %}
    when matched then update set
      {% for column, value in updates.items() %}{{ adapter.quote(column) }} = {{ value }}{{ ',\n      ' if not loop.last }}{% endfor %}
    {% endif %}
    when not matched then insert ({{ get_quoted_csv(columns) }}) values (
      {%- for column in columns %}DBT_INTERNAL_SOURCE.{{ adapter.quote(column) }}{{ ', ' if not loop.last }}{% endfor -%}
    )
  {% endset %}
  {% do return(statement) %}
{% endmacro %}

{# Conditions that a warehouse demands of whatever looks at the table. #}
{% macro merge_filters() %}
  {% do return(adapter.dispatch('merge_filters', 't2')()) %}
{% endmacro %}

{% macro default__merge_filters() %}
  {% do return([]) %}
{% endmacro %}

{# The value of each column that a matched row gets, as SQL; columns that are kept are left out. #}
{% macro merge_updates(columns, key) %}
  {% set rules = t2.merge_rules(columns, key) %}
  {% set event_time = t2.merge_columns_named(config.get('event_time'), columns, 'event_time')[0] %}
  {% do t2.merge_check_range(rules, key, event_time) %}
  {% set updates = {} %}
  {% for column in columns if column not in key and rules[column] != 'keep' %}
    {% set old = 'DBT_INTERNAL_DEST.' ~ adapter.quote(column) %}
    {% set new = 'DBT_INTERNAL_SOURCE.' ~ adapter.quote(column) %}
    {% if rules[column] in ('least', 'greatest') %}
      {# coalesce: some warehouses answer null as soon as one side is null #}
      {% do updates.update({column: 'coalesce(' ~ rules[column] ~ '(' ~ old ~ ', ' ~ new ~ '), ' ~ new ~ ', ' ~ old ~ ')'}) %}
    {% elif event_time not in key and rules[event_time] in ('greatest', 'replace') %}
      {% set later = adapter.quote(event_time) %}
      {% do updates.update({column: 'case when DBT_INTERNAL_DEST.' ~ later ~ ' > DBT_INTERNAL_SOURCE.' ~ later
                                    ~ ' then ' ~ old ~ ' else ' ~ new ~ ' end'}) %}
    {% else %}
      {# same event time, or the table does not hold the latest one: the partition that is built last wins #}
      {% do updates.update({column: new}) %}
    {% endif %}
  {% endfor %}
  {% do return(updates) %}
{% endmacro %}

{# Raises if several partitions are in one statement whose order matters: T2's runtime cannot see undocumented columns. #}
{% macro merge_check_range(rules, key, event_time) %}
  {% set window = t2.own_window() %}
  {% if t2.told() and window and event_time not in key and not t2.partitioned_starts(window, 1) %}
    {% for column, rule in rules.items() if column not in key and rule not in ('least', 'greatest') %}
      {% do exceptions.raise_compiler_error(
        model.name ~ ": one statement merges several partitions, and " ~ column ~ " (" ~ rule ~ ") depends on their order. "
        ~ "Document the column in YAML, so that T2 builds them one by one, or declare meta.t2.merge." ~ column) %}
    {% endfor %}
  {% endif %}
{% endmacro %}

{# The rule of each column that is no key: as declared, else as merge_update_columns or merge_exclude_columns say. #}
{% macro merge_rules(columns, key) %}
  {% set declared = t2.settings_of(model).get('merge') or {} %}
  {% set only = config.get('merge_update_columns') %}
  {% set except = config.get('merge_exclude_columns') %}
  {% if only and except %}
    {% do exceptions.raise_compiler_error(model.name ~ ": merge_update_columns and merge_exclude_columns exclude each other; keep one") %}
  {% endif %}
  {% set only = t2.merge_columns_named(only or columns, columns, 'merge_update_columns') %}
  {% set except = t2.merge_columns_named(except or [], columns, 'merge_exclude_columns') %}
  {% set rules = {} %}
  {% for column in columns %}
    {% do rules.update({column: 'replace' if column in only and column not in except else 'keep'}) %}
  {% endfor %}
  {% for name, rule in declared.items() %}
    {% set column = t2.merge_columns_named(name, columns, 'meta.t2.merge')[0] %}
    {% if rule not in ('least', 'greatest', 'keep', 'replace') %}
      {% do exceptions.raise_compiler_error(
        model.name ~ ": meta.t2.merge." ~ name ~ " is '" ~ rule ~ "'; expected least, greatest, keep or replace") %}
    {% endif %}
    {% do rules.update({column: rule}) %}
  {% endfor %}
  {% do return(rules) %}
{% endmacro %}

{# The columns with some names, in the case that the table has them; raises for a name that it does not have. #}
{% macro merge_columns_named(names, columns, setting) %}
  {% set found = [] %}
  {% for name in ([names] if names is string else names) %}
    {% set bare = name.strip('"`') %}
    {% set match = [bare] if bare in columns else [] %}
    {% for column in columns if not match and column | lower == bare | lower %}{% do match.append(column) %}{% endfor %}
    {% if not match %}
      {% set near = t2.nearest(bare, columns) %}
      {% do exceptions.raise_compiler_error(
        model.name ~ ": " ~ setting ~ " names " ~ name ~ ", which is no column; columns: " ~ columns | join(', ')
        ~ (". Did you mean " ~ near ~ "?" if near else '')) %}
    {% endif %}
    {% do found.append(match[0]) %}
  {% endfor %}
  {% do return(found) %}
{% endmacro %}

{# Raises if a key is null or not unique among the new rows, with an example. #}
{% macro merge_check_key(temp, key) %}
  {% set named = get_quoted_csv(key) %}
  {% set nulls %}
    select count(*) from {{ temp }} where {% for column in key %}{{ adapter.quote(column) }} is null{{ ' or ' if not loop.last }}{% endfor %}
  {% endset %}
  {% set missing = run_query(nulls).rows[0][0] | int %}
  {% if missing %}
    {% do t2.partitioned_discard(temp) %}
    {% do exceptions.raise_compiler_error(
      model.name ~ ": " ~ missing ~ " rows without a key, nothing written: " ~ key | join(' or ') ~ " is null. "
      ~ "A null equals nothing, so a merge would add such a row again and again") %}
  {% endif %}
  {% set doubled %}
    select {{ named }}, count(*) as t2_rows from {{ temp }}
    group by {{ named }} having count(*) > 1 order by t2_rows desc, {{ named }} limit 1
  {% endset %}
  {% for row in run_query(doubled).rows %}
    {% set example = [] %}
    {% for column in key %}{% do example.append(column ~ ' = ' ~ row[loop.index0]) %}{% endfor %}
    {% do t2.partitioned_discard(temp) %}
    {% do exceptions.raise_compiler_error(
      model.name ~ ": the key (" ~ key | join(', ') ~ ") is not unique in the new rows, nothing written: "
      ~ example | join(', ') ~ " comes " ~ row[key | length] | int ~ " times. Make the SQL return one row a key") %}
  {% endfor %}
{% endmacro %}
