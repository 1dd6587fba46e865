{#- For `loaded_at_query`: when the ledger last recorded a full load of the source's table. It is
    the oldest of its partitions' last successes, and null (never) while one has none. Loads before
    the last success of a whole group don't count. Where there is none, the recursion reads the
    index once per partition instead of all loads. To order by source and resource leaves Postgres
    no other index. -#}
{% macro last_loaded_at() %}
{% set loads = builtins.source('elt', 'loads') %}
{% set node = source_node %}
{% set of_table = "source = '%s' and resource = '%s'" % (node.source_name, node.name) %}
with recursive newest_group as (
    select source, resource, load_id
    from {{ loads }}
    where
        (source, resource) <= ('{{ node.source_name }}', '{{ node.name }}')
        and is_group
        and state = 'succeeded'
    order by source desc, resource desc, load_id desc
    limit 1
),

last_group as (
    select max(load_id) as load_id
    from newest_group
    where {{ of_table }}
),

newest as (
    (
        select partition, state, ended_at
        from {{ loads }}
        where {{ of_table }} and is_regular and (select load_id from last_group) is null
        order by partition desc, load_id desc
        limit 1
    )
    union all
    select following.partition, following.state, following.ended_at
    from newest
    cross join lateral (
        select loads.partition, loads.state, loads.ended_at
        from {{ loads }} as loads
        where {{ of_table }} and is_regular and loads.partition < newest.partition
        order by loads.partition desc, loads.load_id desc
        limit 1
    ) as following
),

partitions as (
    select
        case
            when newest.state = 'succeeded' then newest.ended_at
            else (
                select loads.ended_at
                from {{ loads }} as loads
                where
                    {{ of_table }} and is_regular
                    and loads.partition = newest.partition
                    and loads.state = 'succeeded'
                order by loads.load_id desc
                limit 1
            )
        end as succeeded_at
    from newest
    union all
    select max(ended_at) filter (where state = 'succeeded') as succeeded_at
    from {{ loads }}
    where {{ of_table }} and is_regular and load_id >= (select load_id from last_group)
    group by partition
)

select case when bool_and(succeeded_at is not null) then min(succeeded_at) end
from partitions
{% endmacro %}
