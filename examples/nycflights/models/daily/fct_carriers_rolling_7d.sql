-- the days come from the data: a range of days is one statement, each with the six days before it
with flights as (
    select * from {{ t2.window('fct_flights_daily') }}
),

days as (
    select distinct flight_date from flights where {{ t2.in_window('flight_date') }}
)

select
    days.flight_date,
    concat_ws('-', strftime(days.flight_date, '%Y%m%d'), flights.carrier) as carrier_day_id,
    flights.carrier,
    cast(count(distinct flights.flight_date) as integer) as days_flown,
    cast(sum(flights.flights) as integer) as flights_7d,
    cast(sum(flights.canceled) as integer) as canceled_7d,
    cast(sum(flights.delayed) as integer) as delayed_7d
from days
inner join flights on flights.flight_date between days.flight_date - 6 and days.flight_date
group by days.flight_date, flights.carrier
