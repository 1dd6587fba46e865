-- Without is_last_of_partition, which fct_loads looks up in an index for each load.
with loads as (
    select
        load_id,
        replays_load_id,
        source,
        resource,
        partition,
        state,
        error,
        extracted,
        inserted,
        updated,
        deleted,
        open_rejects,
        schema_changes,
        duration_seconds,
        records_per_second,
        is_regular,
        is_superseded,
        ended_at
    from {{ ref('fct_loads') }}
),

last_loads as (
    select distinct on (source, resource) *
    from loads
    order by source asc, resource asc, is_regular desc, load_id desc
),

last_errors as (
    select distinct on (source, resource) *
    from loads
    where error is not null
    order by source asc, resource asc, load_id desc
),

last_of_partitions as (
    select max(load_id) as load_id
    from loads
    where is_regular and not is_superseded
    group by source, resource, partition
),

completeness as (
    select
        loads.source,
        loads.resource,
        bool_and(loads.state = 'succeeded') as is_complete
    from loads
    inner join last_of_partitions on loads.load_id = last_of_partitions.load_id
    group by loads.source, loads.resource
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
        cast(sum(open_rejects) as bigint) as open_rejects,
        cast(sum(schema_changes) as bigint) as schema_changes,
        percentile_cont(0.5) within group (order by duration_seconds)
        filter (where state = 'succeeded' and is_regular) as median_duration_seconds,
        max(ended_at)
        filter (where state = 'succeeded' and is_regular) as last_succeeded_at
    from loads
    group by source, resource
),

final as (
    select
        totals.source,
        totals.resource,

        last_loads.state as last_state,
        last_errors.error as last_error,

        totals.loads,
        totals.running,
        totals.succeeded,
        totals.failed,
        totals.abandoned,
        totals.replays,
        totals.extracted,
        totals.inserted,
        totals.updated,
        totals.deleted,
        totals.open_rejects,
        totals.schema_changes,
        round(cast(totals.median_duration_seconds as numeric), 3) as median_duration_seconds,
        last_loads.duration_seconds as last_duration_seconds,
        last_loads.records_per_second as last_records_per_second,

        coalesce(completeness.is_complete, false) as is_complete,

        totals.last_succeeded_at,
        last_errors.ended_at as last_failed_at
    from totals
    inner join last_loads
        on totals.source = last_loads.source and totals.resource = last_loads.resource
    left join completeness
        on totals.source = completeness.source and totals.resource = completeness.resource
    left join last_errors
        on totals.source = last_errors.source and totals.resource = last_errors.resource
)

select * from final
