-- Looks up by index, for the loads and columns that are asked for. Ask by load_id, run_id or source
-- and resource: `order by load_id desc limit 100` alone reads all loads.
with loads as (
    select * from {{ ref('stg_elt__loads') }}
),

rejects as (
    select * from {{ ref('stg_elt__rejects') }}
),

schema_changes as (
    select * from {{ ref('stg_elt__schema_changes') }}
),

partitions as not materialized (
    select * from {{ ref('stg_elt__partitions') }}
),

timed_loads as (
    select
        *,
        cast(
            case
                when state in ('succeeded', 'failed') then extract(epoch from ended_at - started_at)
            end as numeric(12, 3)
        ) as duration_seconds
    from loads
),

looked_up as (
    select
        *,
        (
            select count(*)
            from rejects
            where rejects.load_id = loads.load_id and rejects.replayed_by_load_id is null
        ) as open_rejects,
        (
            select count(*)
            from schema_changes
            where schema_changes.load_id = loads.load_id
        ) as schema_changes,
        (
            select coalesce(max(grouped.grouped_by_load_id), 0)
            from partitions as grouped
            where
                grouped.source = loads.source
                and grouped.resource = loads.resource
                and grouped.grouped_by_load_id is not null
        ) as last_group,
        (
            select newest.load_id
            from partitions as newest
            where
                newest.source = loads.source
                and newest.resource = loads.resource
                and newest.partition = loads.partition
        ) as last_of_partition
    from timed_loads as loads
),

final as (
    select
        load_id,
        replays_load_id,
        run_id,

        source,
        resource,
        partition,
        state,
        error,

        partitions,
        pages,
        extracted,
        inserted,
        updated,
        unchanged,
        rejected,
        filtered,
        deleted,
        open_rejects,
        schema_changes,
        duration_seconds,
        round(extracted / nullif(duration_seconds, 0), 1) as records_per_second,

        requests,
        received_bytes,
        retries,
        round(cast(waited_seconds as numeric), 3) as waited_seconds,

        is_backfill,
        is_regular,
        is_group,
        load_id < last_group as is_superseded,
        load_id >= last_group
        and coalesce(load_id = last_of_partition, false) as is_last_of_partition,

        started_at,
        ended_at
    from looked_up
)

select * from final
