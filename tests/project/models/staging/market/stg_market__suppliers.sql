with source as (
    select * from {{ source('market', 'suppliers') }}
),

final as (
    select
        supplier_id,
        company_name,
        phone,
        _loaded_at as loaded_at
    from source
)

select * from final
