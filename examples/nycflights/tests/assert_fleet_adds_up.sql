-- A singular test with the same window as the partitions that were just built.
select *
from {{ t2.window('fct_fleet_daily') }}
where known_planes <> new_planes + retained_planes + resurrected_planes + churned_planes
