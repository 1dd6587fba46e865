with order_lines as (
    select * from {{ ref('int_order_lines__priced') }}
),

final as (
    select
        order_id,
        product_id,
        customer_id,
        employee_id,
        shipper_id,

        ship_city,
        ship_country,

        unit_price,
        quantity,
        discount_rate,
        gross_revenue,
        discount_amount,
        revenue,

        order_date,
        required_date,
        shipped_date
    from order_lines
)

select * from final
