select
    flights.flight_date,
    flights.time_hour,
    flights.flight_id,
    flights.carrier,
    airlines.carrier_type,
    flights.flight_number,
    flights.tail_number,
    flights.origin,
    flights.destination,
    flights.scheduled_minute,
    flights.departure_delay,
    flights.arrival_delay,
    flights.air_minutes,
    flights.miles,
    flights.is_canceled,
    flights.weather_class
from {{ t2.window('int_flights_weather') }} as flights
left join {{ ref('dim_airlines') }} as airlines on airlines.carrier = flights.carrier
