{#
  What the `partitioned` materialization is told: {window, condition, whole, strategy, key}; raises on bad settings.
  `condition` is that a row lies in the window, `whole` that all of the table is replaced (a plain `dbt run --full-refresh`).
#}
{% macro partitioned_plan() %}
  {% set cut = t2.cut_of(model) %}
  {% set told = t2.told() %}
  {% set needed = {'event_time': cut.event_time, 'batch_size': cut.grain or told, 'begin': cut.begin or told} %}
  {% for name, value in needed.items() if not value %}
    {% do exceptions.raise_compiler_error("materialized='partitioned' needs the config " ~ name ~ ": " ~ model.name) %}
  {% endfor %}
  {% set window = t2.own_window() %}
  {% set strategy = t2.partitioned_strategy() %}
  {% do return({'window': window, 'condition': t2.within(model, window) if window else '1 = 1',
                'whole': should_full_refresh() and not told and var('t2_start', none) is none,
                'strategy': strategy, 'key': t2.partitioned_key() if strategy == 'merge' else []}) %}
{% endmacro %}

{% macro partitioned_strategies() %}
  {% do return(['insert_overwrite', 'append', 'merge']) %}
{% endmacro %}

{% macro partitioned_strategy() %}
  {% set strategy = config.get('incremental_strategy') or 'insert_overwrite' %}
  {% set valid = t2.partitioned_strategies() %}
  {% if strategy not in valid %}
    {% set near = t2.nearest(strategy, valid) %}
    {% do exceptions.raise_compiler_error(
      model.name ~ ": materialized='partitioned' knows no incremental_strategy='" ~ strategy ~ "'; valid: " ~ valid | join(', ')
      ~ (". Did you mean " ~ near ~ "?" if near else '')) %}
  {% endif %}
  {% if strategy != 'merge' and (config.get('incremental_predicates') or config.get('predicates')) %}
    {% do exceptions.raise_compiler_error(
      model.name ~ ": incremental_predicates are read with incremental_strategy='merge' only; the window says what "
      ~ strategy ~ " replaces") %}
  {% endif %}
  {% do return(strategy) %}
{% endmacro %}

{# The starts of a window's partitions, in order; [] if there are more than `most`. #}
{% macro partitioned_starts(window, most) %}
  {% set found = namespace(at=t2.clock_floor(window.grain, window.start), starts=[]) %}
  {% for _ in range(most + 1) if found.at < window.end %}
    {% do found.starts.append(found.at) %}
    {% set found.at = t2.clock_shift(window.grain, found.at, 1) %}
  {% endfor %}
  {% do return(found.starts if found.starts | length <= most else []) %}
{% endmacro %}

{# The columns of `unique_key` as a list. #}
{% macro partitioned_key() %}
  {% set key = config.get('unique_key') %}
  {% set key = [key] if key is string else key %}
  {% if not key %}
    {% do exceptions.raise_compiler_error(
      model.name ~ ": incremental_strategy='merge' needs unique_key, the column or columns that name a row") %}
  {% endif %}
  {% do return(key) %}
{% endmacro %}

{# The one of some words that shares most pairs of letters with a word, if that is half of them; else ''. #}
{% macro nearest(word, words) %}
  {% set found = namespace(word='', shared=0) %}
  {% set pairs = [] %}
  {% for at in range(word | length - 1) %}{% do pairs.append(word[at:at + 2] | lower) %}{% endfor %}
  {% for candidate in words %}
    {% set shared = pairs | select('in', candidate | lower) | list | length %}
    {% if shared > found.shared and shared * 2 >= pairs | length %}
      {% set found.word = candidate %}
      {% set found.shared = shared %}
    {% endif %}
  {% endfor %}
  {% do return(found.word) %}
{% endmacro %}
