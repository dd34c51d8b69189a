select
    time_hour,
    flight_date,
    concat_ws('-', strftime(time_hour, '%Y%m%d%H'), origin) as origin_hour_id,
    origin,
    cast(count(*) as integer) as flights,
    cast(count(*) filter (where is_canceled) as integer) as canceled,
    cast(count(*) filter (where departure_delay >= 15) as integer) as delayed,
    cast(sum(departure_delay) as bigint) as delay_minutes
from {{ t2.window('stg_flights') }}
group by time_hour, flight_date, origin
