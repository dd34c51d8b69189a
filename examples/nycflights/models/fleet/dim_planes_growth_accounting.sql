with today as (
    select tail_number from {{ t2.window('fct_planes_active_daily') }}
),

yesterday as (
    select * from {{ t2.window('dim_planes_growth_accounting') }}
)

select
    {{ t2.start_date() }} as flight_date,
    tail_number,
    case
        when yesterday.tail_number is null then 'new'
        when today.tail_number is null then 'churned'
        when yesterday.status = 'churned' then 'resurrected'
        else 'retained'
    end as status,
    coalesce(yesterday.first_seen_on, {{ t2.start_date() }}) as first_seen_on,
    case when today.tail_number is null then yesterday.last_seen_on else {{ t2.start_date() }} end as last_seen_on,
    coalesce(yesterday.days_active, 0) + case when today.tail_number is null then 0 else 1 end as days_active
from today
full outer join yesterday using (tail_number)
