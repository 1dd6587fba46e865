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
        coalesce(
            loads.load_id = max(loads.load_id) filter (where loads.is_regular) over (
                partition by loads.source, loads.resource, loads.partition
            ),
            false
        ) as is_last_of_partition,

        loads.started_at,
        loads.ended_at
    from loads
    left join open_rejects on loads.load_id = open_rejects.load_id
    left join changed_columns on loads.load_id = changed_columns.load_id
    left join timed_loads on loads.load_id = timed_loads.load_id
)

select * from final
