select
    flight_date,
    concat_ws('-', strftime(flight_date, '%Y%m%d'), origin) as origin_day_id,
    origin,
    cast(count(*) as integer) as observations,
    min(temperature_f) as lowest_f,
    max(temperature_f) as highest_f,
    max(wind_speed_mph) as strongest_wind_mph,
    -- sums of doubles depend on the order of the rows
    cast(sum(cast(precipitation_inches as decimal(9, 2))) as decimal(9, 2)) as precipitation_inches
from {{ t2.window('stg_weather') }}
group by flight_date, origin
