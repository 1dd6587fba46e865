with products as (
    select * from {{ ref('stg_northwind__products') }}
),

categories as (
    select * from {{ ref('stg_northwind__categories') }}
),

suppliers as (
    select * from {{ ref('stg_northwind__suppliers') }}
),

final as (
    select
        products.product_id,
        products.category_id,
        products.supplier_id,

        products.product_name,
        categories.category_name,
        suppliers.company_name as supplier_name,
        products.quantity_per_unit,

        products.unit_price,
        products.units_in_stock,
        products.units_on_order,
        products.reorder_level,

        products.is_discontinued
    from products
    left join categories on products.category_id = categories.category_id
    left join suppliers on products.supplier_id = suppliers.supplier_id
)

select * from final
