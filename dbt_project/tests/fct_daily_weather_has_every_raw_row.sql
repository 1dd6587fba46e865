-- Fails when the weather mart lost or multiplied rows on its way from raw.
with row_counts as (
    select
        (select count(*) from {{ source('open_meteo', 'daily_weather') }}) as raw_rows,
        (select count(*) from {{ ref('fct_daily_weather') }}) as mart_rows
)

select *
from row_counts
where raw_rows != mart_rows
