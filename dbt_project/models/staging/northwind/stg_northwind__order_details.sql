with source as (
    select * from {{ source('northwind', 'order_details') }}
),

renamed as (
    select
        order_id,
        product_id,

        cast(unit_price as numeric(12, 4)) as unit_price,
        quantity,
        cast(discount as numeric(5, 4)) as discount_rate,

        _loaded_at as loaded_at
    from source
),

final as (
    select * from renamed
)

select * from final
