with source as (
    select * from {{ source('northwind', 'orders') }}
),

renamed as (
    select
        order_id,
        customer_id,
        employee_id,
        ship_via as shipper_id,

        ship_name,
        ship_address,
        ship_city,
        ship_region,
        ship_postal_code,
        ship_country,

        cast(freight as numeric(12, 4)) as freight,

        cast(order_date as date) as order_date,
        cast(required_date as date) as required_date,
        cast(shipped_date as date) as shipped_date,
        _loaded_at as loaded_at
    from source
),

final as (
    select * from renamed
)

select * from final
