select
    flight_date,
    cast(count(*) filter (where status = 'new') as integer) as new_planes,
    cast(count(*) filter (where status = 'retained') as integer) as retained_planes,
    cast(count(*) filter (where status = 'resurrected') as integer) as resurrected_planes,
    cast(count(*) filter (where status = 'churned') as integer) as churned_planes,
    cast(count(*) as integer) as known_planes
from {{ t2.window('dim_planes_growth_accounting') }}
group by flight_date
