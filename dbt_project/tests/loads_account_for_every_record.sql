-- Fails for each load whose records did not all become rows or rejects.
select
    load_id,
    extracted,
    inserted,
    updated,
    unchanged,
    rejected
from {{ ref('fct_loads') }}
where extracted is distinct from inserted + updated + unchanged + rejected
