with loads as (
    select * from {{ ref('fct_loads') }}
),

partitions as (
    select
        source,
        resource,
        partition,
        max(partitions) as partitions,
        max(ended_at) filter (where state = 'succeeded') as loaded_at
    from loads
    where is_regular and not is_superseded
    group by source, resource, partition
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
