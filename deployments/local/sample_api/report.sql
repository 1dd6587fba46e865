-- Does the weather move our sales in London? (marts.rpt_sales_vs_weather)
select
    to_char(sales_month, 'YYYY-MM') as month,
    orders,
    quantity,
    revenue,
    round(mean_temperature_max_celsius::numeric, 1) as "mean max °C"
from marts.rpt_sales_vs_weather
order by sales_month
limit 6
