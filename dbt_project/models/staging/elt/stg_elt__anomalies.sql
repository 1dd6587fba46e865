with source as (
    select * from {{ source('elt', 'anomalies') }}
),

renamed as (
    select
        anomaly_id,
        load_id,

        kind,
        field,
        description,

        usual,

        found_at,
        told_at
    from source
),

final as (
    select * from renamed
)

select * from final
