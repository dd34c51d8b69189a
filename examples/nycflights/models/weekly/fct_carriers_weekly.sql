select
    cast(date_trunc('week', flight_date) as date) as week_start,
    concat_ws('-', strftime(date_trunc('week', flight_date), '%Y%m%d'), carrier) as carrier_week_id,
    carrier,
    cast(count(distinct flight_date) as integer) as days_flown,
    cast(sum(flights) as integer) as flights,
    cast(sum(canceled) as integer) as canceled,
    cast(sum(miles) as bigint) as miles
from {{ t2.window('fct_flights_daily') }}
group by 1, 2, 3
