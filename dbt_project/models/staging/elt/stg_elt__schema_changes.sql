with source as (
    select * from {{ source('elt', 'schema_changes') }}
),

renamed as (
    select
        schema_change_id,
        load_id,

        table_name,
        column_name,
        old_type,
        new_type,

        changed_at
    from source
),

final as (
    select * from renamed
)

select * from final
