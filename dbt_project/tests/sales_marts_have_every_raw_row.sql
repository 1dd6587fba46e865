-- Fails for each sales mart that lost or multiplied rows on its way from raw.
{% set raw_tables = {
    'fct_order_lines': 'order_details',
    'dim_customers': 'customers',
    'dim_products': 'products',
} %}

with row_counts as (
    {% for mart, raw_table in raw_tables.items() %}
        select
            '{{ mart }}' as mart,
            (select count(*) from {{ source('northwind', raw_table) }}) as raw_rows,
            (select count(*) from {{ ref(mart) }}) as mart_rows
        {% if not loop.last %}union all{% endif %}
    {% endfor %}
)

select *
from row_counts
where raw_rows != mart_rows
