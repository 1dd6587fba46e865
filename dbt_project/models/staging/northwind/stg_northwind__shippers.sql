with source as (
    select * from {{ source('northwind', 'shippers') }}
),

renamed as (
    select
        shipper_id,

        company_name,
        phone,

        _loaded_at as loaded_at
    from source
),

final as (
    select * from renamed
)

select * from final
