{#
  Wall clocks: the same arithmetic as t2.planning.grid, for dbt without T2 (tests hold both equal). A wall time is a
  naive datetime on a table's clock, an instant a naive datetime in UTC.
#}

{% macro clock_parse(value) %}
  {% set text = (value | string).replace('T', ' ') %}
  {% set wall = modules.datetime.datetime.fromisoformat(text) %}
  {% do return(wall.replace(tzinfo=none)) %}
{% endmacro %}

{% macro clock_floor(grain, wall) %}
  {% if grain == 'hour' %}{% do return(wall.replace(minute=0, second=0, microsecond=0)) %}{% endif %}
  {% set day = wall.replace(hour=0, minute=0, second=0, microsecond=0) %}
  {% if grain == 'week' %}{% do return(day - modules.datetime.timedelta(days=day.weekday())) %}{% endif %}
  {% if grain == 'month' %}{% do return(day.replace(day=1)) %}{% endif %}
  {% do return(day.replace(month=1, day=1) if grain == 'year' else day) %}
{% endmacro %}

{# Moves the start of a partition by a number of partitions. #}
{% macro clock_shift(grain, wall, count) %}
  {% if grain == 'hour' %}{% do return(wall + modules.datetime.timedelta(hours=count)) %}{% endif %}
  {% if grain in ('day', 'week') %}
    {% do return(wall + modules.datetime.timedelta(days=count * (7 if grain == 'week' else 1))) %}
  {% endif %}
  {% set months = wall.year * 12 + wall.month - 1 + count * (12 if grain == 'year' else 1) %}
  {% do return(wall.replace(year=months // 12, month=months % 12 + 1)) %}
{% endmacro %}

{% macro clock_ceiling(grain, wall) %}
  {% set low = t2.clock_floor(grain, wall) %}
  {% do return(low if low == wall else t2.clock_shift(grain, low, 1)) %}
{% endmacro %}

{# pytz's own localize() differs from zoneinfo where a wall time is skipped or doubled; two conversions from UTC do not. #}
{% macro clock_instant(wall, zone) %}
  {% if zone == 'UTC' %}{% do return(wall) %}{% endif %}
  {% set day = modules.datetime.timedelta(days=1) %}
  {% set before = wall - (t2.clock_wall(wall - day, zone) - (wall - day)) %}
  {% if t2.clock_wall(before, zone) == wall %}{% do return(before) %}{% endif %}
  {% set after = wall - (t2.clock_wall(wall + day, zone) - (wall + day)) %}
  {% do return(after if t2.clock_wall(after, zone) == wall else before) %}
{% endmacro %}

{% macro clock_wall(instant, zone) %}
  {% if zone == 'UTC' %}{% do return(instant) %}{% endif %}
  {% set aware = modules.pytz.utc.localize(instant).astimezone(modules.pytz.timezone(zone)) %}
  {% do return(aware.replace(tzinfo=none)) %}
{% endmacro %}
