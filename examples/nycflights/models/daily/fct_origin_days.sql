with flights as (
    select
        flight_date,
        origin,
        cast(sum(flights) as integer) as flights,
        cast(sum(canceled) as integer) as canceled,
        cast(sum(delayed) as integer) as delayed
    from {{ t2.window('fct_flights_daily') }}
    group by flight_date, origin
),

hours as (
    select
        flight_date,
        origin,
        cast(count(*) filter (where visibility_miles < 3) as integer) as foggy_hours
    from {{ t2.window('int_origin_hours') }}
    group by flight_date, origin
),

routes as (
    select flight_date, origin, cast(count(*) as integer) as routes
    from {{ t2.window('fct_routes_daily') }}
    group by flight_date, origin
)

select
    flights.flight_date,
    concat_ws('-', strftime(flights.flight_date, '%Y%m%d'), flights.origin) as origin_day_id,
    flights.origin,
    flights.flights,
    flights.canceled,
    flights.delayed,
    routes.routes,
    hours.foggy_hours,
    weather.strongest_wind_mph,
    weather.precipitation_inches
from flights
left join {{ t2.window('fct_weather_daily') }} as weather using (flight_date, origin)
left join hours using (flight_date, origin)
left join routes using (flight_date, origin)
