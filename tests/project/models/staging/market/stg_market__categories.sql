with source as (
    select * from {{ source('market', 'categories') }}
),

final as (
    select
        category_id,
        company_name,
        phone,
        _loaded_at as loaded_at
    from source
)

select * from final
