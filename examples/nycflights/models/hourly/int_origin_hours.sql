select
    weather.time_hour,
    weather.flight_date,
    weather.weather_id as origin_hour_id,
    weather.origin,
    coalesce(departures.flights, 0) as flights,
    coalesce(departures.canceled, 0) as canceled,
    coalesce(departures.delayed, 0) as delayed,
    weather.wind_speed_mph,
    weather.precipitation_inches,
    weather.visibility_miles
from {{ t2.window('stg_weather') }} as weather
left join {{ t2.window('int_departures_hourly') }} as departures
    on departures.time_hour = weather.time_hour and departures.origin = weather.origin
