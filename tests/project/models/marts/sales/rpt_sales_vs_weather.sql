select
    cast(date_trunc('month', lines.order_date) as date) as sales_month,
    count(distinct lines.order_id) as orders,
    cast(sum(lines.quantity) as bigint) as quantity,
    round(sum(lines.revenue), 2) as revenue,
    avg(weather.temperature_max_celsius) as mean_temperature_max_celsius,
    count(weather.weather_date) as weather_days
from {{ ref('fct_order_lines') }} as lines
left join {{ ref('fct_daily_weather') }} as weather on lines.order_date = weather.weather_date
where lines.ship_city = 'London'
group by 1
