select
    tailnum as tail_number,
    cast(year as integer) as built_in,
    type as plane_type,
    manufacturer,
    model as plane_model,
    cast(engines as integer) as engines,
    cast(seats as integer) as seats,
    _loaded_at as loaded_at
from {{ source('raw', 'planes') }}
