select
    time_hour,
    -- the source's own year, month and day are New York's: no arithmetic with time zones
    make_date(year, month, day) as flight_date,
    concat_ws('-', strftime(time_hour, '%Y%m%d%H'), carrier, cast(flight as varchar), origin) as flight_id,
    carrier,
    cast(flight as integer) as flight_number,
    tailnum as tail_number,
    origin,
    dest as destination,
    cast(minute as integer) as scheduled_minute,
    cast(dep_delay as integer) as departure_delay,
    cast(arr_delay as integer) as arrival_delay,
    cast(air_time as integer) as air_minutes,
    cast(distance as integer) as miles,
    dep_time is null as is_canceled
from {{ t2.window('raw', 'flights') }}
