with source as (
    select * from {{ source('northwind', 'categories') }}
),

renamed as (
    select
        category_id,

        category_name,
        description as category_description,

        _loaded_at as loaded_at
    from source
),

final as (
    select * from renamed
)

select * from final
