{#- For `loaded_at_query`: when the ledger last recorded a full load of the source's table. It is
    the oldest of its partitions' last successes, and null (never) while one has none. Loads before
    the last success of a whole group don't count. -#}
{% macro last_loaded_at() %}
with loads as (
    select *
    from {{ builtins.source('elt', 'loads') }}
    where
        source = '{{ source_node.source_name }}'
        and resource = '{{ source_node.name }}'
        and is_regular
),

partitions as (
    select max(ended_at) filter (where state = 'succeeded') as succeeded_at
    from loads
    where load_id >= coalesce(
        (select max(load_id) from loads where is_group and state = 'succeeded'), 0
    )
    group by partition
)

select case when bool_and(succeeded_at is not null) then min(succeeded_at) end
from partitions
{% endmacro %}
