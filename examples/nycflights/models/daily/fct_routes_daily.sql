select
    flights.flight_date,
    concat_ws('-', strftime(flights.flight_date, '%Y%m%d'), flights.origin, flights.destination) as route_day_id,
    flights.origin,
    flights.destination,
    any_value(airports.timezone) as destination_timezone,
    cast(count(*) as integer) as flights,
    cast(count(distinct flights.carrier) as integer) as carriers,
    cast(sum(flights.arrival_delay) as bigint) as arrival_delay_minutes,
    cast(count(flights.arrival_delay) as integer) as arrivals
from {{ t2.window('fct_flights') }} as flights
left join {{ ref('dim_airports') }} as airports on airports.airport = flights.destination
group by flights.flight_date, flights.origin, flights.destination
