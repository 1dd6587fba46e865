with source as (
    select * from {{ source('northwind', 'products') }}
),

renamed as (
    select
        product_id,
        supplier_id,
        category_id,

        product_name,
        quantity_per_unit,

        cast(unit_price as numeric(12, 4)) as unit_price,
        units_in_stock,
        units_on_order,
        reorder_level,

        discontinued as is_discontinued,

        _loaded_at as loaded_at
    from source
),

final as (
    select * from renamed
)

select * from final
