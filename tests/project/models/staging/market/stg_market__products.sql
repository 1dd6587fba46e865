with source as (
    select * from {{ source('market', 'products') }}
),

final as (
    select
        product_id,
        category_id,
        supplier_id,
        company_name,
        _loaded_at as loaded_at
    from source
)

select * from final
