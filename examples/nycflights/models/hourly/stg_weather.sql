select
    time_hour,
    make_date(year, month, day) as flight_date,
    concat_ws('-', strftime(time_hour, '%Y%m%d%H'), origin) as weather_id,
    origin,
    temp as temperature_f,
    humid as humidity,
    -- one observation says 1048 miles per hour
    case when wind_speed < 200 then wind_speed end as wind_speed_mph,
    wind_gust as wind_gust_mph,
    precip as precipitation_inches,
    visib as visibility_miles
from {{ t2.window('raw', 'weather') }}
