select
    products.product_id,
    categories.company_name as category_name
from {{ ref('stg_market__products') }} as products
left join {{ ref('stg_market__categories') }} as categories
    on products.category_id = categories.category_id
