select
    faa as airport,
    name as airport_name,
    lat as latitude,
    lon as longitude,
    cast(alt as integer) as altitude_feet,
    tzone as timezone
from {{ source('raw', 'airports') }}
