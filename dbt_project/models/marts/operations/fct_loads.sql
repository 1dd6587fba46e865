with loads as (
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

last_loads as (
    select max(loads.load_id) as load_id
    from loads
    left join groups on loads.source = groups.source and loads.resource = groups.resource
    where loads.is_regular and loads.load_id >= coalesce(groups.load_id, 0)
    group by loads.source, loads.resource, loads.partition
),

timed_loads as (
    select
        load_id,
        cast(extract(epoch from ended_at - started_at) as numeric(12, 3)) as duration_seconds
    from loads
    where state in ('succeeded', 'failed')
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
        timed_loads.duration_seconds,
        round(loads.extracted / nullif(timed_loads.duration_seconds, 0), 1) as records_per_second,

        loads.is_backfill,
        loads.is_regular,
        loads.is_group,
        coalesce(loads.load_id < groups.load_id, false) as is_superseded,
        last_loads.load_id is not null as is_last_of_partition,

        loads.started_at,
        loads.ended_at
    from loads
    left join open_rejects on loads.load_id = open_rejects.load_id
    left join changed_columns on loads.load_id = changed_columns.load_id
    left join timed_loads on loads.load_id = timed_loads.load_id
    left join groups on loads.source = groups.source and loads.resource = groups.resource
    left join last_loads on loads.load_id = last_loads.load_id
)

select * from final
