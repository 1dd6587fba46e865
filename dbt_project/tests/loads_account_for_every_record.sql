-- Fails for each of the newest loads whose records did not all become rows or rejects.
select
    load_id,
    extracted,
    inserted,
    updated,
    unchanged,
    rejected
from {{ ref('fct_loads') }}
where
    extracted is distinct from inserted + updated + unchanged + rejected
    and load_id > (
        select max(known.load_id) - {{ var('newest_loads') }}
        from {{ source('elt', 'partitions') }} as known
    )
