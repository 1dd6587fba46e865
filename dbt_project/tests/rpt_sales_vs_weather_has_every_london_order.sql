-- Fails for each month whose orders in the report differ from the orders shipped to London.
with expected as (
    select
        cast(date_trunc('month', order_date) as date) as sales_month,
        count(*) as orders
    from {{ ref('stg_northwind__orders') }}
    where ship_city = 'London'
    group by sales_month
),

reported as (
    select
        sales_month,
        orders
    from {{ ref('rpt_sales_vs_weather') }}
)

select
    coalesce(expected.sales_month, reported.sales_month) as sales_month,
    expected.orders as expected_orders,
    reported.orders as reported_orders
from expected
full outer join reported on expected.sales_month = reported.sales_month
where expected.orders is distinct from reported.orders
