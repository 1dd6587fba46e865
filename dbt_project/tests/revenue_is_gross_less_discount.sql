-- Fails for each order line whose amounts do not add up exactly.
select
    order_id,
    product_id,
    gross_revenue,
    discount_amount,
    revenue
from {{ ref('fct_order_lines') }}
where gross_revenue - discount_amount is distinct from revenue
