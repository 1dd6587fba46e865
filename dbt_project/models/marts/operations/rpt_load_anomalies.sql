with anomalies as (
    select * from {{ ref('stg_elt__anomalies') }}
),

loads as (
    select * from {{ ref('stg_elt__loads') }}
),

final as (
    select
        anomalies.anomaly_id,
        anomalies.load_id,
        loads.run_id,

        loads.source,
        loads.resource,
        loads.partition,
        anomalies.kind,
        anomalies.field,
        anomalies.description,

        loads.extracted,
        anomalies.usual as usual_extracted,

        loads.started_at,
        anomalies.found_at,
        anomalies.told_at
    from anomalies
    inner join loads on anomalies.load_id = loads.load_id
)

select * from final
