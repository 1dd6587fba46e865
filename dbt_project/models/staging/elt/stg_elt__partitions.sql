with source as (
    select * from {{ source('elt', 'partitions') }}
),

renamed as (
    select
        source,
        resource,
        partition,

        load_id,
        succeeded_by as succeeded_by_load_id,
        grouped_by as grouped_by_load_id,
        backfilled_by as backfilled_by_load_id,
        loaded_by as loaded_by_load_id,
        stored_by as stored_by_load_id,
        deleted_by as deleted_by_load_id,

        succeeded_at
    from source
),

final as (
    select * from renamed
)

select * from final
