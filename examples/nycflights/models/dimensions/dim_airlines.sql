select
    airlines.carrier,
    airlines.name as carrier_name,
    coalesce(types.carrier_type, 'unknown') as carrier_type,
    types.alliance
from {{ source('raw', 'airlines') }} as airlines
left join {{ ref('carrier_types') }} as types on types.carrier = airlines.carrier
