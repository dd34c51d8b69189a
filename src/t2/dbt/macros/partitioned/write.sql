{# Writes the built rows as the strategy says; the caller holds the transaction and keeps others off the partitions. #}
{% macro partitioned_write(relation, temp, plan, rows) %}
  {% set columns = t2.partitioned_columns(temp, relation) %}
  {% if plan.strategy == 'merge' %}
    {% do t2.partitioned_merge(relation, temp, columns, plan) %}
  {% else %}
    {% do t2.partitioned_replace(relation, temp, columns, plan) %}
  {% endif %}
  {% do store_raw_result('main', message=plan.strategy ~ ' ' ~ rows, code=plan.strategy, rows_affected=rows) %}
{% endmacro %}

{# insert_overwrite and append. #}
{% macro partitioned_replace(relation, temp, columns, plan) %}
  {% do adapter.dispatch('partitioned_replace', 't2')(relation, temp, columns, plan) %}
{% endmacro %}

{# append looks before it deletes. #}
{% macro default__partitioned_replace(relation, temp, columns, plan) %}
  {% set columns = get_quoted_csv(columns) %}
  {% if not plan.whole and (plan.strategy == 'insert_overwrite' or t2.partitioned_has_rows(relation, plan)) %}
    {% call statement('delete') %}delete from {{ relation }} where {{ plan.condition }}{% endcall %}
  {% endif %}
  {% call statement('main') %}
    insert into {{ relation }} ({{ columns }}) select {{ columns }} from {{ temp }}
  {% endcall %}
{% endmacro %}

{% macro partitioned_has_rows(relation, plan) %}
  {% set query %}select 1 from {{ relation }} where {{ plan.condition }} limit 1{% endset %}
  {% do return(run_query(query).rows | length > 0) %}
{% endmacro %}
