-- Fails when the lines' revenue is not exactly the sum of the raw lines.
with raw_lines as (
    select sum(unit_price * quantity * (1 - discount)) as revenue
    from {{ source('northwind', 'order_details') }}
),

order_lines as (
    select sum(revenue) as revenue
    from {{ ref('fct_order_lines') }}
)

select
    raw_lines.revenue as raw_revenue,
    order_lines.revenue as mart_revenue
from raw_lines
cross join order_lines
where raw_lines.revenue is distinct from order_lines.revenue
