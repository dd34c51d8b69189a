select airport, airport_name, latitude, longitude, altitude_feet, timezone
from {{ ref('stg_airports') }}
union all
select airport, airport_name, latitude, longitude, altitude_feet, timezone
from {{ ref('territory_airports') }}
