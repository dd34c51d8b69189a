select
    flights.flight_date,
    concat_ws('-', strftime(flights.flight_date, '%Y%m%d'), flights.tail_number) as plane_day_id,
    flights.tail_number,
    coalesce(any_value(planes.size_class), 'unknown') as size_class,
    cast(count(*) as integer) as legs,
    cast(sum(flights.miles) as bigint) as miles
from {{ t2.window('fct_flights') }} as flights
left join {{ ref('dim_planes') }} as planes on planes.tail_number = flights.tail_number
where flights.tail_number is not null and not flights.is_canceled
group by flights.flight_date, flights.tail_number
