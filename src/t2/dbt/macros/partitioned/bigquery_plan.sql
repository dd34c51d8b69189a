{#
  What `partitioned_plan` says, and for BigQuery:
    by     how the table is partitioned, dbt's own PartitionConfig
    write  'copy': each partition is replaced by a copy job; 'merge': all of them by one statement
    ids    BigQuery's names of the partitions that a copy replaces
#}
{% macro bigquery_plan() %}
  {% set plan = t2.partitioned_plan() %}
  {% set cut = t2.cut_of(model) %}
  {% set cut = dict(cut, grain=cut.grain or plan.window.grain, zone=plan.window.zone if plan.window else cut.zone) %}
  {% set by = t2.bigquery_partitioning(cut) %}
  {% set cuts = by.field | lower == cut.event_time | lower %}
  {% set ids = t2.bigquery_partitions(plan.window, by) if cuts and plan.window else [] %}
  {% do plan.update({'by': by, 'write': t2.bigquery_write(plan.strategy, by, cut), 'ids': ids}) %}
  {% do return(plan) %}
{% endmacro %}

{# As `partition_by` says, else by the event time: a partition each, of weeks their days. #}
{% macro bigquery_partitioning(cut) %}
  {% set given = config.get('partition_by') %}
  {% if not given %}
    {% set type = t2.bigquery_event_type(cut.event_time) %}
    {% set given = {'field': cut.event_time, 'data_type': type, 'granularity': 'day' if cut.grain == 'week' else cut.grain} %}
  {% endif %}
  {% set by = adapter.parse_partition_by(given) %}
  {% if by.time_ingestion_partitioning %}
    {% do exceptions.raise_compiler_error(
      model.name ~ ": partition_by.time_ingestion_partitioning cuts by the time of writing, and materialized='partitioned' by event_time") %}
  {% endif %}
  {% do return(by) %}
{% endmacro %}

{# The type of the event time: as documented, else what the query returns. #}
{% macro bigquery_event_type(column) %}
  {% set documented = t2.column_type(model, column) | lower %}
  {% if documented %}{% do return(documented) %}{% endif %}
  {% set empty = get_empty_subquery_sql(sql, config.get('sql_header')) %}
  {% for found in adapter.get_column_schema_from_query(empty) if found.name | lower == column | lower %}
    {% do return(found.data_type | lower) %}
  {% endfor %}
  {% do exceptions.raise_compiler_error(model.name ~ ": the SQL returns no column " ~ column ~ ", which is its event_time") %}
{% endmacro %}

{#
  meta.t2.bigquery.write, else 'copy' where a partition of T2 is one of BigQuery, whose partitions are cut by UTC if the
  column is a TIMESTAMP. project/bigquery.py says the same before anything runs.
#}
{% macro bigquery_write(strategy, by, cut) %}
  {% set wanted = (t2.settings_of(model).get('bigquery') or {}).get('write') %}
  {% if wanted and wanted not in ('copy', 'merge') %}
    {% do exceptions.raise_compiler_error(model.name ~ ": meta.t2.bigquery.write is '" ~ wanted ~ "'; expected copy or merge") %}
  {% endif %}
  {% set ranks = {'hour': 0, 'day': 1, 'week': 2, 'month': 3, 'year': 4} %}
  {% set by_event_time = by.field | lower == cut.event_time | lower and by.data_type | lower != 'int64' %}
  {% set aligned = by_event_time and (cut.zone == 'UTC' or by.data_type | lower != 'timestamp') %}
  {% if wanted == 'copy' and not (strategy != 'merge' and aligned and ranks[by.granularity | lower] <= ranks[cut.grain]) %}
    {% do exceptions.raise_compiler_error(
      model.name ~ ": meta.t2.bigquery.write: copy needs insert_overwrite or append, and a table whose BigQuery partitions make up "
      ~ "those of T2; remove it") %}
  {% endif %}
  {% do return(wanted or ('copy' if strategy != 'merge' and aligned and by.granularity | lower == cut.grain else 'merge')) %}
{% endmacro %}

{# BigQuery's names of the partitions in a window; raises if one job may not change as many. #}
{% macro bigquery_partitions(window, by) %}
  {% set grain = by.granularity | lower %}
  {% set cut = dict(window, grain=grain) %}
  {% if by.data_type | lower == 'timestamp' %}
    {% do cut.update({'start': t2.clock_instant(window.start, window.zone), 'end': t2.clock_instant(window.end, window.zone)}) %}
  {% endif %}
  {% set starts = t2.partitioned_starts(cut, 4000) %}
  {% if not starts %}
    {% do exceptions.raise_compiler_error(
      model.name ~ ": [" ~ window.start ~ ", " ~ window.end ~ ") has more than 4000 partitions, which is what BigQuery changes in one "
      ~ "job. Build less at once: meta.t2.backfill.partitions_per_run, or the vars t2_start and t2_end") %}
  {% endif %}
  {% set format = {'hour': '%Y%m%d%H', 'day': '%Y%m%d', 'month': '%Y%m', 'year': '%Y'}[grain] %}
  {% set ids = [] %}
  {% for start in starts %}{% do ids.append(start.strftime(format)) %}{% endfor %}
  {% do return(ids) %}
{% endmacro %}
