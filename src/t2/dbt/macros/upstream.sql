{# The graph's node of an upstream, found among the model's own dependencies: no scan of the whole graph. #}
{% macro upstream_node(name, table=none) %}
  {% for unique_id in model.depends_on.nodes %}
    {% set node = graph.sources.get(unique_id) if table is not none else graph.nodes.get(unique_id) %}
    {% if node and table is not none and node.source_name == name and node.name == table %}{% do return(node) %}{% endif %}
    {% if node and table is none and node.name == name %}{% do return(node) %}{% endif %}
  {% endfor %}
{% endmacro %}

{# The window of an upstream, {start, end, zone} on its own clock; none for all its rows. #}
{% macro upstream_window(node) %}
  {% set told = t2.told().get('windows', {}).get(node.unique_id) %}
  {% if told and told.start %}{% do return(t2.told_window(told)) %}{% endif %}
  {% set declared = t2.declared_upstream(node) %}
  {% if (told and told.all) or declared.get('window') == 'all' %}{% do return(none) %}{% endif %}
  {% set cut = t2.cut_of(node) %}
  {% set seen_through = node.resource_type == 'model' and node.config.materialized in ('view', 'ephemeral') %}
  {% if cut.event_time is none or (cut.grain is none and not seen_through) %}{% do return(none) %}{% endif %}
  {% set own = t2.own_window() %}
  {% if declared.get('window') == 'latest' and cut.grain is not none %}
    {% do return(t2.latest_window(own, cut)) %}
  {% endif %}
  {% set moves = told if told else t2.moves_of(declared) %}
  {% do return(t2.window_back(own, cut, moves.lookback, moves.back, moves.shift) if own is not none else none) %}
{% endmacro %}

{# Without T2 nobody knows what has landed: the newest partition of an upstream that is over by the window's end, or now. #}
{% macro latest_window(own, cut) %}
  {% set end = t2.clock_instant(own.end, own.zone) if own is not none
               else run_started_at.astimezone(modules.pytz.utc).replace(tzinfo=none) %}
  {% set high = t2.clock_floor(cut.grain, t2.clock_wall(end, cut.zone)) %}
  {% do return({'start': t2.clock_shift(cut.grain, high, -1), 'end': high, 'zone': cut.zone}) %}
{% endmacro %}

{% macro told_window(told) %}
  {% do return({'start': t2.clock_parse(told.start), 'end': t2.clock_parse(told.end), 'zone': told.timezone}) %}
{% endmacro %}

{#
  [start - lookback own windows - back, end) moved by `shift` (both in seconds), on the upstream's clock; whole partitions
  of an upstream that is coarser.
#}
{% macro window_back(own, cut, lookback, back=0, shift=0) %}
  {% set seconds = modules.datetime.timedelta(seconds=1) %}
  {% set low = t2.clock_shift(own.grain, t2.clock_floor(own.grain, own.start), -lookback) %}
  {% set low = t2.clock_wall(t2.clock_instant(low, own.zone) + (shift - back) * seconds, cut.zone) %}
  {% set high = t2.clock_wall(t2.clock_instant(own.end, own.zone) + shift * seconds, cut.zone) %}
  {% set ranks = {'hour': 0, 'day': 1, 'week': 2, 'month': 3, 'year': 4} %}
  {% if cut.grain is not none and ranks[cut.grain] > ranks[own.grain] %}
    {% set low = t2.clock_floor(cut.grain, low) %}
    {% set high = t2.clock_ceiling(cut.grain, high) %}
  {% endif %}
  {% do return({'start': low, 'end': high, 'zone': cut.zone}) %}
{% endmacro %}

{# meta.t2.upstream.<name>; a source's name is `source.table`. #}
{% macro declared_upstream(node) %}
  {% set upstream = t2.settings_of(model).get('upstream') or {} %}
  {% set name = node.source_name ~ '.' ~ node.name if node.source_name else node.name %}
  {% do return(upstream.get(name) or {}) %}
{% endmacro %}

{# How far a window goes back, in partitions or seconds, and is shifted. #}
{% macro moves_of(declared) %}
  {% set lookback = declared.get('lookback') or 0 %}
  {% set in_time = lookback is string %}
  {% do return({'lookback': 0 if in_time else lookback | int, 'back': t2.seconds_of(lookback) if in_time else 0,
                'shift': t2.seconds_of(declared.get('shift') or '0s')}) %}
{% endmacro %}

{# The seconds of a duration such as 90m, 3d or -1h. #}
{% macro seconds_of(text) %}
  {% do return((text[:-1] | int) * {'s': 1, 'm': 60, 'h': 3600, 'd': 86400}[text[-1]]) %}
{% endmacro %}

{# The rows of the table itself that lie before its window: [start - lookback, start). #}
{% macro window_of_itself() %}
  {% set told = t2.told() %}
  {% if load_cached_relation(this) is none or t2.begins_anew() %}
    {% do return(t2.no_rows_of(model)) %}
  {% endif %}
  {% set own = t2.own_window() %}
  {% if own is none %}{% do return(this.render()) %}{% endif %}
  {% if model.unique_id in told.get('windows', {}) %}
    {% set window = t2.told_window(told.windows[model.unique_id]) %}
  {% else %}
    {% set window = t2.window_back(dict(own, end=own.start), t2.cut_of(model), t2.declared_upstream(model).get('lookback', 1) | int) %}
  {% endif %}
  {% do return('(select * from ' ~ this.render() ~ ' where ' ~ t2.within(model, window) ~ ')') %}
{% endmacro %}

{# Whether what is there is being replaced: by a full refresh, of which dbt's microbatch makes only the first batch so. #}
{% macro begins_anew() %}
  {% if t2.told() or not should_full_refresh() %}{% do return(false) %}{% endif %}
  {% set batch = t2.window_of_batch() %}
  {% set first = flags.EVENT_TIME_START or t2.cut_of(model).begin %}
  {% do return(batch is none or not first or batch.start <= t2.clock_parse(first)) %}
{% endmacro %}

{# An empty relation with the documented columns: what a table reads from itself before it exists. #}
{% macro no_rows_of(node) %}
  {% set untyped = [] %}
  {% set typed = [] %}
  {% for column in node.columns.values() %}
    {% if column.data_type %}
      {% set name = adapter.quote(column.name) if column.quote else column.name %}
      {% do typed.append('cast(null as ' ~ column.data_type ~ ') as ' ~ name) %}
    {% else %}
      {% do untyped.append(column.name) %}
    {% endif %}
  {% endfor %}
  {% if untyped or not typed %}
    {% do exceptions.raise_compiler_error(
      node.name ~ " reads itself with t2.window('" ~ node.name ~ "') and does not exist yet: its YAML must give the "
      ~ "data_type of " ~ ('the columns ' ~ untyped | join(', ') if untyped else 'every column')) %}
  {% endif %}
  {% do return('(select ' ~ typed | join(', ') ~ ' limit 0)') %}
{% endmacro %}

{# The condition that a node's event time lies in a window {start, end, zone}. #}
{% macro within(node, window) %}
  {% do return(t2.column_within(t2.event_time_column(node), t2.column_type(node, node.config.event_time), window)) %}
{% endmacro %}

{# The condition that a column of a type lies in a window. #}
{% macro column_within(column, type, window) %}
  {% do return(column ~ ' >= ' ~ t2.literal(window.start, type, window.zone)
               ~ ' and ' ~ column ~ ' < ' ~ t2.literal(window.end, type, window.zone)) %}
{% endmacro %}

{% macro event_time_column(node) %}
  {% do return(t2.quoted_column(node, node.config.event_time)) %}
{% endmacro %}

{# A column as SQL names it: quoted where its documentation says so. #}
{% macro quoted_column(node, name) %}
  {% set documented = (node.columns or {}).get(name) %}
  {% do return(adapter.quote(name) if documented and documented.quote else name) %}
{% endmacro %}

{% macro column_type(node, name) %}
  {% set documented = (node.columns or {}).get(name) %}
  {% do return((documented.data_type or '') if documented else '') %}
{% endmacro %}

{# A wall time as SQL. A column documented as timestamptz is compared with the instant: no session setting matters. #}
{% macro literal(wall, type='', zone='UTC') -%}
  {{- return(adapter.dispatch('literal', 't2')(wall, type, zone)) -}}
{%- endmacro %}

{# A wall time of the model's own clock as SQL. #}
{% macro own_literal(wall) -%}
  {{- return(adapter.dispatch('own_literal', 't2')(wall)) -}}
{%- endmacro %}

{% macro default__own_literal(wall) %}
  {% do return(t2.literal(wall)) %}
{% endmacro %}

{% macro default__literal(wall, type, zone) %}
  {% if (type | lower).startswith('timestamptz') or 'with time zone' in (type | lower) %}
    {% do return("cast('" ~ t2.clock_instant(wall, zone).strftime('%Y-%m-%d %H:%M:%S') ~ "+00' as timestamptz)") %}
  {% endif %}
  {% do return("cast('" ~ wall.strftime('%Y-%m-%d %H:%M:%S') ~ "' as timestamp)") %}
{% endmacro %}
