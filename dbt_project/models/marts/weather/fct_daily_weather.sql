with daily_weather as (
    select * from {{ ref('stg_open_meteo__daily_weather') }}
),

changed as (
    select daily_weather.*
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
),

final as (
    select
        city,

        temperature_max_celsius,
        temperature_min_celsius,
        temperature_mean_celsius,
        precipitation_mm,
        wind_speed_max_kmh,
        sunshine_seconds,

        weather_date,
        loaded_at
    from changed
)

select * from final
