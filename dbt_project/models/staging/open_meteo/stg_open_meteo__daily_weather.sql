with source as (
    select * from {{ source('open_meteo', 'daily_weather') }}
),

renamed as (
    select
        city,

        temperature_2m_max as temperature_max_celsius,
        temperature_2m_min as temperature_min_celsius,
        temperature_2m_mean as temperature_mean_celsius,
        precipitation_sum as precipitation_mm,
        wind_speed_10m_max as wind_speed_max_kmh,
        sunshine_duration as sunshine_seconds,

        cast(time as date) as weather_date,
        _loaded_at as loaded_at
    from source
),

final as (
    select * from renamed
)

select * from final
