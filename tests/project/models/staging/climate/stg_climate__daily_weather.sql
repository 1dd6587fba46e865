with source as (
    select * from {{ source('climate', 'daily_weather') }}
),

final as (
    select
        city,
        cast(time as date) as weather_date,
        temperature_2m_max as temperature_max_celsius,
        _loaded_at as loaded_at
    from source
)

select * from final
