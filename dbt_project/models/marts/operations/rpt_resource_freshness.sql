-- Only a row without a partition's name may stand for many. Subqueries find its loads by index; a
-- join with a view of loads would read all of them.
with known as not materialized (
    select * from {{ ref('stg_elt__partitions') }}
),

last_groups as (
    select
        source,
        resource,
        max(grouped_by_load_id) as load_id
    from known
    where grouped_by_load_id is not null
    group by source, resource
),

loads as not materialized (
    select * from {{ ref('stg_elt__loads') }}
),

partitions as (
    select
        known.source,
        known.resource,
        case
            when known.partition != '' then 1
            else greatest(
                1,
                (
                    select loads.partitions
                    from loads
                    where loads.load_id = known.load_id
                ),
                (
                    select loads.partitions
                    from loads
                    where loads.load_id = known.succeeded_by_load_id
                )
            )
        end as partitions,
        case
            when known.succeeded_by_load_id >= coalesce(last_groups.load_id, 0)
                then known.succeeded_at
        end as loaded_at
    from known
    left join last_groups
        on known.source = last_groups.source and known.resource = last_groups.resource
    where known.load_id >= coalesce(last_groups.load_id, 0)
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
