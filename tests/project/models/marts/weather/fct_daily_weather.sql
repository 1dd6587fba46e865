with daily_weather as (
    select * from {{ ref('stg_climate__daily_weather') }}
)

select
    city,
    temperature_max_celsius,
    weather_date,
    loaded_at
from daily_weather
{% if is_incremental() %}
    where
        not exists (
            select 1
            from {{ this }} as built
            where
                built.city = daily_weather.city
                and built.weather_date = daily_weather.weather_date
                and built.loaded_at = daily_weather.loaded_at
        )
{% endif %}
