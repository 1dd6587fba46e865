{#- Fails for each number outside the range; bounds are included, and null passes. -#}
{% test accepted_range(model, column_name, min_value="'-infinity'", max_value="'infinity'") %}

select {{ column_name }}
from {{ model }}
where
    {{ column_name }} < cast({{ min_value }} as double precision)
    or {{ column_name }} > cast({{ max_value }} as double precision)

{% endtest %}
