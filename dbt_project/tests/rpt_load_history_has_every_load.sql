-- Fails for each resource whose totals in the report differ from its newest loads in the ledger.
with expected as (
    select
        source,
        resource,
        count(*) as loads,
        sum(extracted) as extracted
    from {{ source('elt', 'loads') }}
    where
        load_id > (
            select coalesce(max(known.load_id), 0) - {{ var('newest_loads') }}
            from {{ source('elt', 'partitions') }} as known
        )
    group by source, resource
),

reported as (
    select
        source,
        resource,
        running + succeeded + failed + abandoned as loads,
        extracted
    from {{ ref('rpt_load_history') }}
    where loads > 0
)

select
    expected.*,
    reported.loads as reported_loads,
    reported.extracted as reported_extracted
from expected
full outer join reported
    on expected.source = reported.source and expected.resource = reported.resource
where
    expected.loads is distinct from reported.loads
    or expected.extracted is distinct from reported.extracted
