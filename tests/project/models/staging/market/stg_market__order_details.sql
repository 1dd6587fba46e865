with source as (
    select * from {{ source('market', 'order_details') }}
),

final as (
    select
        order_id,
        product_id,
        unit_price,
        quantity,
        discount as discount_rate,
        _loaded_at as loaded_at
    from source
)

select * from final
