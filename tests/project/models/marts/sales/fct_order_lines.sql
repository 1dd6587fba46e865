with order_lines as (
    select * from {{ ref('stg_market__order_details') }}
),

orders as (
    select * from {{ ref('stg_market__orders') }}
),

final as (
    select
        order_lines.order_id,
        order_lines.product_id,
        orders.customer_id,
        orders.ship_city,
        order_lines.quantity,
        order_lines.unit_price * order_lines.quantity * (1 - order_lines.discount_rate) as revenue,
        orders.order_date
    from order_lines
    left join orders on order_lines.order_id = orders.order_id
)

select * from final
