-- Fills a new ledger with as many loads as given of 400 days: 20 sources with 7 resources each.
-- Numbers that look random are remainders, so that every run has the same ledger.
create temporary table slots as
select
    row_number() over (order by number, kind, part) as slot,
    's' || lpad(number::text, 2, '0') as source,
    kind as resource,
    part as partition,
    kind in ('prices', 'stocks') and part = '' as is_group
from
    generate_series(0, 19) as sources (number)
cross join lateral (
    values
    ('orders', array['']),
    ('countries', array['']),
    ('weather', array['London', 'Paris', 'Rome', 'Oslo']),
    ('prices', array['', 'large']),
    ('stocks', array['']),
    (
        'reports',
        array(
            select 'report ' || part
            from generate_series(
                1, case when number = 0 then 2000 when number < 5 then 200 else 20 end
            ) as parts (part)
        )
    ),
    ('events', array[''])
) as resources (kind, parts)
cross join lateral unnest(parts) as partitions (part);

create temporary table runs as
with planned as (
    select ceil(%(rows)s::numeric / (select count(*) from slots)) as runs
)

select
    run::bigint,
    now() - interval '400 days' * (runs - run) / runs as started_at,
    run = runs as is_last
from
    planned,
    lateral generate_series(1, runs) as numbers (run);

create temporary table planned_loads as
select
    started_at,
    slot,
    source,
    resource,
    partition,
    md5(source || run)::uuid::text as run_id,
    is_group,
    false as is_backfill,
    mod(run * 7919 + slot * 104729, 1000) as dice,
    case resource when 'countries' then mod(run, 500) = 0 else mod(run, 2) = 0 end as is_changed,
    resource = 'reports' and mod(run, 50) = 0 as has_deleted,
    is_last and mod(slot, 97) = 0 as is_running
from runs
cross join slots;

insert into planned_loads
select
    now() - interval '200 days',
    window_number,
    's' || lpad(number::text, 2, '0'),
    'events',
    to_char(date '2000-01-01' + window_number * 7, 'YYYY-MM-DD..')
    || to_char(date '2000-01-08' + window_number * 7, 'YYYY-MM-DD'),
    md5('backfill' || number)::uuid::text,
    false,
    true,
    500,
    true,
    false,
    false
from
    generate_series(0, 19) as sources (number),
    generate_series(1, greatest(1, %(rows)s / 5000)) as windows (window_number);

insert into elt.loads (
    source, resource, partition, run_id, state, started_at, ended_at, pages, extracted, inserted,
    updated, unchanged, rejected, deleted, error, is_backfill, is_complete, partitions, is_group
)
select
    source,
    resource,
    partition,
    run_id,
    state,
    started_at,
    case when state <> 'running' then started_at + interval '1 second' * (1 + mod(dice, 60)) end,
    stored,
    100 * stored,
    case when is_changed then 10 * stored else 0 end,
    case when is_changed then 20 * stored else 0 end,
    (case when is_changed then 70 else 100 end - case when dice = 20 then 5 else 0 end) * stored,
    case when dice = 20 then 5 * stored else 0 end,
    case when has_deleted then 3 * stored else 0 end,
    case when state in ('failed', 'abandoned') then repeat('the API is away, ', 9) end,
    is_backfill,
    state = 'succeeded',
    case when is_group then %(partitions)s else 1 end,
    is_group
from planned_loads
cross join lateral (
    select
        case
            when is_running then 'running'
            when dice < 10 then 'failed'
            when dice = 10 then 'abandoned'
            else 'succeeded'
        end as state
) as states
cross join lateral (
    select case when state = 'succeeded' then 1 else 0 end as stored
) as numbers
order by started_at, slot;

create temporary table rejecting as
select
    load_id,
    mod(row_number() over (order by load_id), 10) > 0 as is_replayed
from elt.loads
where rejected > 0;

insert into elt.loads (
    source, resource, partition, run_id, state, started_at, ended_at, extracted, inserted,
    is_complete, replays
)
select
    source,
    resource,
    partition,
    md5('replay' || load_id)::uuid::text,
    'succeeded',
    ended_at + interval '1 day',
    ended_at + interval '1 day',
    5,
    5,
    true,
    load_id
from elt.loads
inner join rejecting using (load_id)
where is_replayed
order by load_id;

insert into elt.rejects (load_id, reason, record, replayed_by)
select
    rejecting.load_id,
    'amount: "n/a" is no number',
    '{"id": 1, "amount": "n/a"}',
    replays.load_id
from rejecting
left join elt.loads as replays on rejecting.load_id = replays.replays
cross join generate_series(1, 5)
order by 1;

insert into elt.schema_changes (load_id, table_name, column_name, new_type)
select
    load_id,
    source || '.' || resource,
    'note',
    'text'
from elt.loads
where mod(load_id, 5003) = 0 and not is_backfill and state = 'succeeded'
order by load_id;

insert into elt.checkpoints (source, resource, partition, cursor_at, load_id)
select
    source,
    resource,
    partition,
    max(ended_at),
    max(load_id)
from elt.loads
where state = 'succeeded' and replays is null and not is_group
group by source, resource, partition;

insert into elt.checkpoints (source, resource, partition, cursor_at, load_id, parent_load_id)
select
    source,
    resource,
    'item ' || part,
    max(ended_at),
    max(load_id),
    0
from
    elt.loads
cross join generate_series(1, %(partitions)s) as parts (part)
where
    state = 'succeeded'
    and is_group
    and load_id > (select max(load_id) - %(rows)s / 20 from elt.loads)
group by source, resource, part;

insert into elt.resets (source, resource, after_load_id, reason)
select
    source,
    'orders',
    (min(load_id) + max(load_id)) / 2,
    'reset by hand'
from elt.loads
where resource = 'orders'
group by source;

drop table slots, runs, planned_loads, rejecting;
