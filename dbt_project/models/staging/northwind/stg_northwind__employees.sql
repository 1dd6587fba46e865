with source as (
    select * from {{ source('northwind', 'employees') }}
),

renamed as (
    select
        employee_id,
        reports_to as manager_id,

        last_name,
        first_name,
        title as job_title,
        title_of_courtesy,
        address,
        city,
        region,
        postal_code,
        country,
        home_phone,
        extension,
        notes,
        photo_path as photo_url,

        cast(birth_date as date) as birth_date,
        cast(hire_date as date) as hire_date,
        _loaded_at as loaded_at
    from source
),

final as (
    select * from renamed
)

select * from final
