with source as (
    select * from {{ source('northwind', 'customers') }}
),

renamed as (
    select
        customer_id,

        company_name,
        contact_name,
        contact_title,
        address,
        city,
        region,
        postal_code,
        country,
        phone,
        fax,

        _loaded_at as loaded_at
    from source
),

final as (
    select * from renamed
)

select * from final
