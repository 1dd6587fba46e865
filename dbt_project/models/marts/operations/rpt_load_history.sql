-- Totals are those of the newest loads. They and what `limit 1` looks up are found by index; a join
-- with a view of loads would read all of them.
with loads as not materialized (
    select * from {{ ref('fct_loads') }}
),

known as not materialized (
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

rejects as (
    select * from {{ ref('stg_elt__rejects') }}
),

changes as (
    select * from {{ ref('stg_elt__schema_changes') }}
),

resources as (
    select
        known.source,
        known.resource,
        max(known.load_id) as last_load_id,
        max(known.succeeded_at) as last_succeeded_at,
        coalesce(
            bool_and(known.succeeded_by_load_id is not distinct from known.load_id)
            filter (where known.load_id >= coalesce(last_groups.load_id, 0)),
            false
        ) as is_complete
    from known
    left join last_groups
        on known.source = last_groups.source and known.resource = last_groups.resource
    group by known.source, known.resource
),

newest_loads as (
    select
        loads.load_id,
        loads.replays_load_id,
        loads.source,
        loads.resource,
        loads.state,
        loads.error,
        loads.extracted,
        loads.inserted,
        loads.updated,
        loads.deleted,
        loads.duration_seconds,
        loads.is_regular,
        loads.ended_at
    from loads
    where loads.load_id > (
        select coalesce(max(known.load_id), 0) - {{ var('newest_loads') }} from known
    )
),

last_errors as (
    select distinct on (source, resource) *
    from newest_loads
    where error is not null
    order by source asc, resource asc, load_id desc
),

open_rejects as (
    select
        rejecting.source,
        rejecting.resource,
        count(*) as open_rejects
    from rejects
    cross join
        lateral (
            select
                loads.source,
                loads.resource
            from loads
            where loads.load_id = rejects.load_id
            order by loads.load_id
            limit 1
        ) as rejecting
    where rejects.replayed_by_load_id is null
    group by rejecting.source, rejecting.resource
),

schema_changes as (
    select
        newest_loads.source,
        newest_loads.resource,
        count(*) as schema_changes
    from changes
    inner join newest_loads on changes.load_id = newest_loads.load_id
    group by newest_loads.source, newest_loads.resource
),

totals as (
    select
        source,
        resource,
        count(*) as loads,
        count(*) filter (where state = 'running') as running,
        count(*) filter (where state = 'succeeded') as succeeded,
        count(*) filter (where state = 'failed') as failed,
        count(*) filter (where state = 'abandoned') as abandoned,
        count(replays_load_id) as replays,
        cast(sum(extracted) as bigint) as extracted,
        cast(sum(inserted) as bigint) as inserted,
        cast(sum(updated) as bigint) as updated,
        cast(sum(deleted) as bigint) as deleted,
        percentile_cont(0.5) within group (order by duration_seconds)
        filter (where state = 'succeeded' and is_regular) as median_duration_seconds
    from newest_loads
    group by source, resource
),

final as (
    select
        resources.source,
        resources.resource,

        last_loads.state as last_state,
        last_errors.error as last_error,

        coalesce(totals.loads, 0) as loads,
        coalesce(totals.running, 0) as running,
        coalesce(totals.succeeded, 0) as succeeded,
        coalesce(totals.failed, 0) as failed,
        coalesce(totals.abandoned, 0) as abandoned,
        coalesce(totals.replays, 0) as replays,
        coalesce(totals.extracted, 0) as extracted,
        coalesce(totals.inserted, 0) as inserted,
        coalesce(totals.updated, 0) as updated,
        coalesce(totals.deleted, 0) as deleted,
        coalesce(open_rejects.open_rejects, 0) as open_rejects,
        coalesce(schema_changes.schema_changes, 0) as schema_changes,
        round(cast(totals.median_duration_seconds as numeric), 3) as median_duration_seconds,
        last_loads.duration_seconds as last_duration_seconds,
        last_loads.records_per_second as last_records_per_second,

        resources.is_complete,

        resources.last_succeeded_at,
        last_errors.ended_at as last_failed_at
    from resources
    left join lateral (
        select
            loads.state,
            loads.duration_seconds,
            loads.records_per_second
        from loads
        where loads.load_id = resources.last_load_id
        order by loads.load_id
        limit 1
    ) as last_loads on true
    left join totals
        on resources.source = totals.source and resources.resource = totals.resource
    left join last_errors
        on resources.source = last_errors.source and resources.resource = last_errors.resource
    left join open_rejects
        on resources.source = open_rejects.source and resources.resource = open_rejects.resource
    left join schema_changes
        on
            resources.source = schema_changes.source
            and resources.resource = schema_changes.resource
)

select * from final
