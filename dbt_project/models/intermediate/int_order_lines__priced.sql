with orders as (
    select * from {{ ref('stg_northwind__orders') }}
),

order_details as (
    select * from {{ ref('stg_northwind__order_details') }}
),

final as (
    select
        order_details.order_id,
        order_details.product_id,
        orders.customer_id,
        orders.employee_id,
        orders.shipper_id,

        orders.ship_city,
        orders.ship_country,

        order_details.unit_price,
        order_details.quantity,
        order_details.discount_rate,
        order_details.unit_price * order_details.quantity as gross_revenue,
        order_details.unit_price * order_details.quantity
        * order_details.discount_rate as discount_amount,
        order_details.unit_price * order_details.quantity
        * (1 - order_details.discount_rate) as revenue,

        orders.order_date,
        orders.required_date,
        orders.shipped_date
    from order_details
    left join orders on order_details.order_id = orders.order_id
)

select * from final
