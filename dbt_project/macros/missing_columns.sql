{#
    The columns that a raw table lacks, as nulls of their types, each after a comma: an API's
    document promises them, but no record has had them yet.
#}
{% macro missing_columns(relation, types) -%}
    {%- if execute -%}
        {%- set columns = adapter.get_columns_in_relation(relation) -%}
        {%- set present = columns | map(attribute='name') | list -%}
        {%- for name, type in types.items() if name not in present -%}
            , cast(null as {{ type }}) as {{ adapter.quote(name) }}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro %}
