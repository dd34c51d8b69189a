select
    flights.time_hour,
    flights.flight_date,
    flights.flight_id,
    flights.carrier,
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
    weather.temperature_f,
    weather.wind_speed_mph,
    weather.visibility_miles,
    case
        when weather.weather_id is null then 'unknown'
        when weather.visibility_miles < 3 or weather.wind_speed_mph >= 25 then 'severe'
        when weather.precipitation_inches > 0 then 'wet'
        else 'fair'
    end as weather_class
from {{ t2.window('stg_flights') }} as flights
left join {{ t2.window('stg_weather') }} as weather
    on weather.time_hour = flights.time_hour and weather.origin = flights.origin
