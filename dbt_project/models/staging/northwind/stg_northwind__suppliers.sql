with source as (
    select * from {{ source('northwind', 'suppliers') }}
),

renamed as (
    select
        supplier_id,

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
        home_page,

        _loaded_at as loaded_at
    from source
),

final as (
    select * from renamed
)

select * from final
