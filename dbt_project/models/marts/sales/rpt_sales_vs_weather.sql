{% set city = 'London' %}

with order_lines as (
    select * from {{ ref('fct_order_lines') }}
),

daily_weather as (
    select * from {{ ref('fct_daily_weather') }}
),

monthly_sales as (
    select
        cast(date_trunc('month', order_date) as date) as sales_month,
        count(distinct order_id) as orders,
        cast(sum(quantity) as bigint) as quantity,
        sum(revenue) as revenue
    from order_lines
    where ship_city = '{{ city }}'
    group by sales_month
),

monthly_weather as (
    select
        cast(date_trunc('month', weather_date) as date) as weather_month,
        avg(temperature_max_celsius) as mean_temperature_max_celsius,
        count(temperature_max_celsius) as weather_days
    from daily_weather
    where city = '{{ city }}'
    group by weather_month
),

final as (
    select
        monthly_sales.sales_month,
        monthly_sales.orders,
        monthly_sales.quantity,
        round(monthly_sales.revenue, 2) as revenue,
        monthly_weather.mean_temperature_max_celsius,
        coalesce(monthly_weather.weather_days, 0) as weather_days
    from monthly_sales
    left join monthly_weather on monthly_sales.sales_month = monthly_weather.weather_month
)

select * from final
