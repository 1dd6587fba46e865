with source as (
    select * from {{ source('market', 'shippers') }}
),

final as (
    select
        shipper_id,
        company_name,
        phone,
        _loaded_at as loaded_at
    from source
)

select * from final
