select
    cast(date_trunc('month', flight_date) as date) as month_start,
    concat_ws('-', strftime(date_trunc('month', flight_date), '%Y%m'), origin, destination) as route_month_id,
    origin,
    destination,
    cast(sum(flights) as integer) as flights,
    round(sum(arrival_delay_minutes) / nullif(sum(arrivals), 0), 1) as mean_arrival_delay
from {{ t2.window('fct_routes_daily') }}
group by 1, 2, 3, 4
