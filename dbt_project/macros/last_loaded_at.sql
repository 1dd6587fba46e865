{#- For `loaded_at_query`: when the ledger last recorded a full load of the source's table. It is
    the oldest of its partitions' last successes, and null (never) while one has none. -#}
{% macro last_loaded_at() %}
with partitions as (
    select max(ended_at) filter (where state = 'succeeded') as succeeded_at
    from {{ builtins.source('elt', 'loads') }}
    where
        source = '{{ source_node.source_name }}'
        and resource = '{{ source_node.name }}'
        and is_regular
    group by partition
)

select case when bool_and(succeeded_at is not null) then min(succeeded_at) end
from partitions
{% endmacro %}
