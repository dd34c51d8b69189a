select
    tail_number,
    built_in,
    plane_type,
    manufacturer,
    plane_model,
    engines,
    seats,
    case when seats >= 100 then 'large' when seats >= 20 then 'regional' else 'small' end as size_class
from {{ ref('snp_planes') }}
where dbt_valid_to is null
