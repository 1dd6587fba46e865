-- Fails for each day that the weather mart lost, or that differs from raw or is missing there.
with raw_rows as (
    select
        city,
        cast(time as date) as weather_date,
        _loaded_at as loaded_at
    from {{ source('open_meteo', 'daily_weather') }}
),

mart_rows as (
    select
        city,
        weather_date,
        loaded_at
    from {{ ref('fct_daily_weather') }}
)

select
    coalesce(raw_rows.city, mart_rows.city) as city,
    coalesce(raw_rows.weather_date, mart_rows.weather_date) as weather_date,
    raw_rows.loaded_at as raw_loaded_at,
    mart_rows.loaded_at as mart_loaded_at
from raw_rows
full outer join mart_rows
    on raw_rows.city = mart_rows.city and raw_rows.weather_date = mart_rows.weather_date
where raw_rows.loaded_at is distinct from mart_rows.loaded_at
