with source as (
    select * from {{ source('elt', 'rejects') }}
),

renamed as (
    select
        reject_id,
        load_id,
        replayed_by as replayed_by_load_id,

        reason,
        record,

        rejected_at
    from source
),

final as (
    select * from renamed
)

select * from final
