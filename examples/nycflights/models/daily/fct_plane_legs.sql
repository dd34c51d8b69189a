select
    flight_date,
    flight_id,
    tail_number,
    origin,
    destination,
    cast(row_number() over legs as integer) as leg_of_day,
    lag(flight_id) over legs as previous_flight_id,
    lag(departure_delay) over legs as previous_departure_delay,
    departure_delay
from {{ t2.window('fct_flights') }}
where tail_number is not null and not is_canceled
window legs as (
    partition by flight_date, tail_number
    order by time_hour, scheduled_minute, flight_id
)
