with source as (
    select * from {{ source('elt', 'loads') }}
),

renamed as (
    select
        load_id,
        replays as replays_load_id,
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

        requests,
        received_bytes,
        retries,
        waited_seconds,

        is_backfill,
        is_regular,
        is_group,

        started_at,
        ended_at
    from source
),

final as (
    select * from renamed
)

select * from final
