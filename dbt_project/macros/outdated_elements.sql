{#- For an incremental model of a list's elements, with the parent's `_loaded_at` as `loaded_at`.
    `columns` are its columns of the parent's key, each with the parent's column. -#}

{#- As a pre-hook: deletes the elements of parents that changed, or are gone, since the last build.
    -#}
{% macro delete_outdated_elements(parent, columns) %}
    {% if is_incremental() %}
        delete from {{ this }} as built
        where not exists (
            select 1 from {{ parent }} as parent where {{ is_of_parent('parent', columns) }}
        )
    {% endif %}
{% endmacro %}

{#- The condition that the elements of a parent are not built as the parent is now. -#}
{% macro has_outdated_elements(alias, columns) -%}
not exists (
    select 1 from {{ this }} as built where {{ is_of_parent(alias, columns) }}
)
{%- endmacro %}

{% macro is_of_parent(alias, columns) -%}
    built.loaded_at = {{ alias }}._loaded_at
    and (built.{{ columns | join(', built.') }})
    = ({{ alias }}.{{ columns.values() | join(', ' ~ alias ~ '.') }})
{%- endmacro %}
