select
    rolling.carrier,
    airlines.carrier_name,
    airlines.carrier_type,
    rolling.flight_date as as_of,
    rolling.flights_7d,
    round(100.0 * rolling.canceled_7d / rolling.flights_7d, 2) as canceled_percent,
    round(100.0 * rolling.delayed_7d / rolling.flights_7d, 2) as delayed_percent
from {{ ref('fct_carriers_rolling_7d') }} as rolling
left join {{ ref('dim_airlines') }} as airlines on airlines.carrier = rolling.carrier
qualify row_number() over (partition by rolling.carrier order by rolling.flight_date desc) = 1
