with loads as not materialized (
    select * from {{ ref('stg_elt__loads') }}
),

rejects as (
    select * from {{ ref('stg_elt__rejects') }}
),

schema_changes as (
    select * from {{ ref('stg_elt__schema_changes') }}
),

open_rejects as (
    select
        load_id,
        count(*) as open_rejects
    from rejects
    where replayed_by_load_id is null
    group by load_id
),

changed_columns as (
    select
        load_id,
        count(*) as schema_changes
    from schema_changes
    group by load_id
),

groups as (
    select
        source,
        resource,
        max(load_id) as load_id
    from loads
    where is_group and state = 'succeeded'
    group by source, resource
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

final as (
    select
        loads.load_id,
        loads.replays_load_id,
        loads.run_id,

        loads.source,
        loads.resource,
        loads.partition,
        loads.state,
        loads.error,

        loads.partitions,
        loads.pages,
        loads.extracted,
        loads.inserted,
        loads.updated,
        loads.unchanged,
        loads.rejected,
        loads.filtered,
        loads.deleted,
        coalesce(open_rejects.open_rejects, 0) as open_rejects,
        coalesce(changed_columns.schema_changes, 0) as schema_changes,
        loads.duration_seconds,
        round(loads.extracted / nullif(loads.duration_seconds, 0), 1) as records_per_second,

        loads.requests,
        loads.received_bytes,
        loads.retries,
        round(cast(loads.waited_seconds as numeric), 3) as waited_seconds,

        loads.is_backfill,
        loads.is_regular,
        loads.is_group,
        coalesce(loads.load_id < groups.load_id, false) as is_superseded,
        loads.is_regular
        and loads.load_id >= coalesce(groups.load_id, 0)
        and not exists (
            select
            from loads as newer
            where
                newer.source = loads.source
                and newer.resource = loads.resource
                and newer.partition = loads.partition
                and newer.is_regular
                and newer.load_id > loads.load_id
        ) as is_last_of_partition,

        loads.started_at,
        loads.ended_at
    from timed_loads as loads
    left join open_rejects on loads.load_id = open_rejects.load_id
    left join changed_columns on loads.load_id = changed_columns.load_id
    left join groups on loads.source = groups.source and loads.resource = groups.resource
)

select * from final
