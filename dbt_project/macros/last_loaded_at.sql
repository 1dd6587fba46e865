{#- For `loaded_at_query`: when the ledger last recorded a full load of the source's table. It is
    the oldest of its partitions' last successes, and null (never) while one has none. Loads before
    the last success of a whole group don't count. -#}
{% macro last_loaded_at() %}
with partitions as (
    select
        load_id,
        succeeded_by,
        succeeded_at,
        coalesce(max(grouped_by) over (), 0) as last_group
    from {{ builtins.source('elt', 'partitions') }}
    where source = '{{ source_node.source_name }}' and resource = '{{ source_node.name }}'
)

select
    case
        when bool_and(coalesce(succeeded_by >= last_group, false)) then min(succeeded_at)
    end
from partitions
where load_id >= last_group
{% endmacro %}
