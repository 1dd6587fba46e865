select
        customer_id,
        company_name,
        phone
from {{ ref('stg_market__customers') }}
