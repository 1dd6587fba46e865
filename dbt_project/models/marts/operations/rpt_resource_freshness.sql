with known as (
    select
        *,
        coalesce(max(grouped_by_load_id) over (partition by source, resource), 0) as last_group
    from {{ ref('stg_elt__partitions') }}
),

loads as not materialized (
    select * from {{ ref('stg_elt__loads') }}
),

partitions as (
    select
        known.source,
        known.resource,
        coalesce(greatest(newest.partitions, succeeded.partitions), 1) as partitions,
        case
            when known.succeeded_by_load_id >= known.last_group then known.succeeded_at
        end as loaded_at
    from known
    left join loads as newest on known.load_id = newest.load_id
    left join loads as succeeded on known.succeeded_by_load_id = succeeded.load_id
    where known.load_id >= known.last_group
),

resources as (
    select
        source,
        resource,
        cast(sum(partitions) as bigint) as partitions,
        cast(coalesce(sum(partitions) filter (where loaded_at is not null), 0) as bigint)
            as loaded_partitions,
        case when count(*) = count(loaded_at) then min(loaded_at) end as loaded_in_full_at
    from partitions
    group by source, resource
),

final as (
    select
        source,
        resource,

        partitions,
        loaded_partitions,
        round(cast(extract(epoch from now() - loaded_in_full_at) / 3600 as numeric), 1)
            as hours_since_loaded,

        loaded_in_full_at
    from resources
)

select * from final
