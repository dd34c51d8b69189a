select
    flights.flight_date,
    airlines.carrier_name,
    airports.airport_name,
    flights.flights,
    flights.canceled,
    round(flights.delay_minutes / nullif(flights.flights - flights.canceled, 0), 1) as mean_departure_delay
from {{ ref('fct_flights_daily') }} as flights
left join {{ ref('dim_airlines') }} as airlines on airlines.carrier = flights.carrier
left join {{ ref('dim_airports') }} as airports on airports.airport = flights.origin
