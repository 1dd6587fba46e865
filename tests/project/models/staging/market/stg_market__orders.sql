with source as (
    select * from {{ source('market', 'orders') }}
),

final as (
    select
        order_id,
        customer_id,
        ship_city,
        cast(left(order_date, 10) as date) as order_date,
        _loaded_at as loaded_at
    from source
)

select * from final
