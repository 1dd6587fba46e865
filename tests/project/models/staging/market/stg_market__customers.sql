with source as (
    select * from {{ source('market', 'customers') }}
),

final as (
    select
        customer_id,
        company_name,
        phone,
        _loaded_at as loaded_at
    from source
)

select * from final
