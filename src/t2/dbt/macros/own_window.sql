{# How a node is cut: {grain, zone, event_time, begin}; all but the zone may be none. #}
{% macro cut_of(node) %}
  {% set settings = t2.settings_of(node) %}
  {% set grain = settings.get('batch_size') or node.config.get('batch_size') %}
  {% do return({
    'grain': grain,
    'zone': 'UTC' if grain == 'hour' else (settings.get('timezone') or t2.zone_under(node)),
    'event_time': node.config.get('event_time'),
    'begin': settings.get('begin') or node.config.get('begin'),
  }) %}
{% endmacro %}

{# The clock of a view or ephemeral model is that of the tables under it, if they agree. #}
{% macro zone_under(node) %}
  {% if not execute or node.resource_type != 'model' or node.config.materialized not in ('view', 'ephemeral') %}
    {% do return('UTC') %}
  {% endif %}
  {% set zones = [] %}
  {% for unique_id in node.depends_on.nodes %}
    {% set parent = graph.nodes.get(unique_id) or graph.sources.get(unique_id) %}
    {% set cut = t2.cut_of(parent) %}
    {% if cut.event_time and cut.zone not in zones %}{% do zones.append(cut.zone) %}{% endif %}
  {% endfor %}
  {% do return(zones[0] if zones | length == 1 else 'UTC') %}
{% endmacro %}

{% macro settings_of(node) %}
  {% set meta = node.config.get('meta') or {} %}
  {% do return(meta.get('t2') or {}) %}
{% endmacro %}

{# What T2's runtime says (runtime/windows.py); {} in plain dbt. #}
{% macro told() %}
  {% set told = var('t2', none) %}
  {% do return(told if told is mapping and told.get('windows') is mapping else {}) %}
{% endmacro %}

{# The model's own window {start, end, grain, zone}, wall times on its own clock; none for all there is. #}
{% macro own_window() %}
  {% set told = t2.told() %}
  {% if told %}
    {% if told.get('start') is none %}{% do return(none) %}{% endif %}
    {% do return({'start': t2.clock_parse(told.start), 'end': t2.clock_parse(told.end),
                  'grain': told.grain, 'zone': told.timezone}) %}
  {% endif %}
  {% set cut = t2.cut_of(model) %}
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
