{# How a node is cut: {grain, zone, event_time, begin, types}; grain and event_time may be none. #}
{% macro cut_of(node) %}
  {% set settings = t2.settings_of(node) %}
  {% set grain = node.config.get('batch_size') or settings.get('batch_size') %}
  {% set grain = ((grain.value if grain.value is defined else grain) | string | lower) if grain else none %}
  {% do return({
    'grain': grain,
    'zone': 'UTC' if grain == 'hour' else (settings.get('timezone') or 'UTC'),
    'event_time': node.config.get('event_time'),
    'begin': node.config.get('begin') or settings.get('begin'),
  }) %}
{% endmacro %}

{% macro settings_of(node) %}
  {% set meta = node.config.get('meta') or {} %}
  {% do return(meta.get('t2') or {}) %}
{% endmacro %}

{# The model's own window {start, end, grain, zone}, wall times on its own clock; none for all there is. #}
{% macro own_window() %}
  {% set cut = t2.cut_of(model) %}
  {% set told = var('t2', none) %}
  {% if told is mapping and told.get('windows') is mapping %}
    {% if told.get('start') is none %}{% do return(none) %}{% endif %}
    {% do return({'start': t2.clock_parse(told.start), 'end': t2.clock_parse(told.end),
                  'grain': told.grain, 'zone': told.timezone}) %}
  {% endif %}
  {% if cut.grain is none or cut.event_time is none or model.config.materialized in
        ('view', 'ephemeral', 'table', 'seed', 'snapshot', 'materialized_view', 'test') %}
    {% do return(none) %}
  {% endif %}
  {% set found = t2.window_of_batch() or t2.window_of_vars(cut) or t2.window_by_default(cut) %}
  {% do return(dict(found, grain=cut.grain, zone=cut.zone) if found else none) %}
{% endmacro %}

{% macro window_of_batch() %}
  {% set batch = model.get('batch') %}
  {% if not batch %}{% do return(none) %}{% endif %}
  {% do return({'start': batch.event_time_start.replace(tzinfo=none), 'end': batch.event_time_end.replace(tzinfo=none)}) %}
{% endmacro %}

{% macro window_of_vars(cut) %}
  {% set start = var('t2_start', none) %}
  {% set end = var('t2_end', none) %}
  {% if start is none and end is none %}{% do return(none) %}{% endif %}
  {% if start is none or end is none %}
    {% do exceptions.raise_compiler_error("the vars t2_start and t2_end are given together or not at all") %}
  {% endif %}
  {% do return({'start': t2.clock_floor(cut.grain, t2.clock_parse(start)),
                'end': t2.clock_ceiling(cut.grain, t2.clock_parse(end))}) %}
{% endmacro %}

{# A new table: from begin on; else the partition before the current one and the current one (dbt's lookback of 1). #}
{% macro window_by_default(cut) %}
  {% set instant = run_started_at.astimezone(modules.pytz.utc).replace(tzinfo=none) %}
  {% set current = t2.clock_floor(cut.grain, t2.clock_wall(instant, cut.zone)) %}
  {% if not should_full_refresh() and load_cached_relation(this) is not none %}
    {% do return({'start': t2.clock_shift(cut.grain, current, -1), 'end': t2.clock_shift(cut.grain, current, 1)}) %}
  {% endif %}
  {% if not cut.begin %}{% do return(none) %}{% endif %}
  {% do return({'start': t2.clock_floor(cut.grain, t2.clock_parse(cut.begin)),
                'end': t2.clock_shift(cut.grain, current, 1)}) %}
{% endmacro %}
