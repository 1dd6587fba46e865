{#- For staging: the condition that a row is not deleted according to a census, a `FullList` of all
    keys. `columns` are the row's columns of the key, each with the census' column. A row that was
    loaded after the last complete census began is not judged by it, nor any before the first. -#}
{% macro is_listed(alias, census, columns) -%}
(
    {{ alias }}._loaded_at >= coalesce(
        (
            select loads.started_at
            from {{ api.Relation.create(schema='elt', identifier='loads') }} as loads
            where
                loads.source = '{{ census.schema[4:] }}'
                and loads.resource = '{{ census.identifier }}'
                and loads.is_regular
                and loads.state = 'succeeded'
            order by loads.source desc, loads.resource desc, loads.load_id desc
            limit 1
        ),
        '-infinity'
    )
    or exists (
        select 1
        from {{ census }} as listed
        where
            listed._deleted_at is null
            and (listed.{{ columns.values() | join(', listed.') }})
            = ({{ alias }}.{{ columns | join(', ' ~ alias ~ '.') }})
    )
)
{%- endmacro %}
