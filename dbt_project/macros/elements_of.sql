{#- For staging: a row for each element of a JSON list, with `element.value` and, from 1 on,
    `element.position`; none for null, an empty list, and what is no list. -#}
{% macro elements_of(column) -%}
cross join lateral jsonb_array_elements(
    case jsonb_typeof({{ column }}) when 'array' then {{ column }} end
) with ordinality as element (value, position)
{%- endmacro %}
