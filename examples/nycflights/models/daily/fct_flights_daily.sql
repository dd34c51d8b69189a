select
    flight_date,
    concat_ws('-', strftime(flight_date, '%Y%m%d'), carrier, origin) as carrier_day_id,
    carrier,
    origin,
    cast(count(*) as integer) as flights,
    cast(count(*) filter (where is_canceled) as integer) as canceled,
    cast(count(*) filter (where departure_delay >= 15) as integer) as delayed,
    cast(sum(departure_delay) as bigint) as delay_minutes,
    cast(sum(miles) filter (where not is_canceled) as bigint) as miles
from {{ t2.window('fct_flights') }}
group by flight_date, carrier, origin
