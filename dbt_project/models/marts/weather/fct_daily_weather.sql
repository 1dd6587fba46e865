with daily_weather as (
    select * from {{ ref('stg_open_meteo__daily_weather') }}
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

        weather_date
    from daily_weather
)

select * from final
