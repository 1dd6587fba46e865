create table if not exists elt.loads (
    load_id bigint generated always as identity primary key,
    source text not null,
    resource text not null,
    partition text not null,
    run_id text,
    state text not null check (state in ('running', 'succeeded', 'failed', 'abandoned')),
    started_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz,
    pages bigint not null default 0,
    extracted bigint not null default 0,
    inserted bigint not null default 0,
    updated bigint not null default 0,
    unchanged bigint not null default 0,
    rejected bigint not null default 0,
    deleted bigint not null default 0,
    error text,
    constraint nothing_is_lost check (extracted = inserted + updated + unchanged + rejected)
);

create index if not exists loads_of_a_resource on elt.loads (source, resource, partition, load_id);

comment on table elt.loads is
'What every load extracted and what became of it; one row per run of one resource partition.';

alter table elt.loads add column if not exists replays bigint references elt.loads;

alter table elt.loads add column if not exists is_backfill boolean not null default false;

comment on column elt.loads.is_backfill is
'Whether it loaded one window of a backfill; partition names the window.';

alter table elt.loads add column if not exists is_regular boolean
generated always as (replays is null and not is_backfill) stored;

comment on column elt.loads.is_regular is
'Whether it read the API for the whole partition: neither a replay nor a window of a backfill.';

alter table elt.loads add column if not exists is_complete boolean not null default false;

alter table elt.loads add column if not exists is_part boolean not null default false;

comment on column elt.loads.is_part is
'Whether its run''s limit ended it before everything was read, or may do so while it runs.';

comment on column elt.loads.is_complete is
'Whether all of its pages are stored, although it may have failed because of its rejects.';

alter table elt.loads add column if not exists filtered bigint not null default 0;

comment on column elt.loads.filtered is
'Records that the resource''s map_record omitted; extracted does not count them.';

alter table elt.loads add column if not exists partitions bigint not null default 1;

comment on column elt.loads.partitions is
'How many partitions the row stands for; 1 unless it is the row of a group.';

alter table elt.loads add column if not exists is_group boolean not null default false;

comment on column elt.loads.is_group is
'Whether it stands for many partitions; once it succeeded, older rows of theirs no longer count.';

alter table elt.loads add column if not exists requests bigint not null default 0;

alter table elt.loads add column if not exists received_bytes bigint not null default 0;

alter table elt.loads add column if not exists retries bigint not null default 0;

alter table elt.loads add column if not exists waited_seconds double precision not null default 0;

comment on column elt.loads.requests is
'Requests sent to the API, with retries and redirects; without those for a login''s token.';

comment on column elt.loads.received_bytes is
'Bytes of the responses'' bodies, as they came (compressed).';

comment on column elt.loads.waited_seconds is
'How long requests waited for the rate limit, for pauses and before retries; added up over threads.';

comment on column elt.loads.replays is
'The load whose rejects this one loaded again; null if it read the API.';

create table if not exists elt.checkpoints (
    source text not null,
    resource text not null,
    partition text not null,
    cursor_at timestamptz,
    cursor_seen_at timestamptz,
    resume jsonb,
    saved_at timestamptz not null default clock_timestamp(),
    load_id bigint not null references elt.loads,
    primary key (source, resource, partition)
);

alter table elt.checkpoints add column if not exists window_until timestamptz;

comment on column elt.checkpoints.window_until is
'End of the window of a load that has not completed; null if there is none to resume.';

alter table elt.checkpoints add column if not exists begun_by bigint;

comment on column elt.checkpoints.begun_by is
'The first load of those that read the incomplete window; null if there is none to resume.';

alter table elt.checkpoints add column if not exists parent_load_id bigint;

comment on column elt.checkpoints.parent_load_id is
'Load that had last changed the parent''s row when this was read; 0 if it is final, null if due.';

alter table elt.checkpoints add column if not exists cursor_number numeric;

alter table elt.checkpoints add column if not exists cursor_seen_number numeric;

alter table elt.checkpoints add column if not exists cursor_token text;

alter table elt.checkpoints add column if not exists cursor_field text;

comment on column elt.checkpoints.cursor_at is
'Newest time that the last complete load saw in the cursor''s field; null for other cursors.';

comment on column elt.checkpoints.cursor_number is
'Highest number that the last complete load saw in the cursor''s field; null for other cursors.';

comment on column elt.checkpoints.cursor_token is
'Token that the API gave for all that complete loads have read; null for other cursors.';

comment on column elt.checkpoints.cursor_field is
'Field of the cursor, or header of its token; null if an older version saved the checkpoint, or without a cursor.';

comment on table elt.checkpoints is
'Where the next load resumes; one row per resource partition.';

create table if not exists elt.rejects (
    reject_id bigint generated always as identity primary key,
    load_id bigint not null references elt.loads,
    rejected_at timestamptz not null default clock_timestamp(),
    reason text not null,
    record text not null
);

alter table elt.rejects add column if not exists replayed_by bigint references elt.loads;

create index if not exists rejects_of_a_load on elt.rejects (load_id, reject_id);

comment on table elt.rejects is
'Records that could not be stored, as JSON text; one row per record and load.';

comment on column elt.rejects.replayed_by is
'The load that replayed the record or read everything again; null while the reject is open.';

create table if not exists elt.schema_changes (
    schema_change_id bigint generated always as identity primary key,
    load_id bigint not null references elt.loads,
    changed_at timestamptz not null default clock_timestamp(),
    table_name text not null,
    column_name text not null,
    old_type text,
    new_type text not null
);

comment on table elt.schema_changes is
'Columns added to raw tables (old_type is null) or widened; one row per column and change.';

create table if not exists elt.resets (
    reset_id bigint generated always as identity primary key,
    source text not null,
    resource text not null,
    reset_at timestamptz not null default clock_timestamp(),
    after_load_id bigint not null,
    reason text not null
);

create index if not exists resets_of_a_resource on elt.resets (source, resource, after_load_id);

comment on table elt.resets is
'When loads of a resource started over, by hand or because its rows were gone; one row per reset.';

comment on column elt.resets.after_load_id is
'The newest load before the reset; rows of that load and earlier ones are gone.';

create table if not exists elt.columns (
    table_schema text not null,
    table_name text not null,
    column_name text not null,
    field text not null,
    named_at timestamptz not null default clock_timestamp(),
    primary key (table_schema, table_name, column_name)
);

comment on table elt.columns is
'Which field of the API each column of a raw table holds; of two columns of a field the later counts.';

create table if not exists elt.partitions (
    source text not null,
    resource text not null,
    partition text not null,
    load_id bigint,
    succeeded_by bigint,
    succeeded_at timestamptz,
    grouped_by bigint,
    backfilled_by bigint,
    loaded_by bigint,
    stored_by bigint,
    deleted_by bigint,
    primary key (source, resource, partition)
);

create index if not exists partitions_with_groups on elt.partitions (source, resource)
where grouped_by is not null;

comment on table elt.partitions is
'The newest loads of each kind, so that nobody looks for them in elt.loads; one row per resource partition.';

comment on column elt.partitions.load_id is
'The newest regular load, but no part after a success; null if only replayed or backfilled.';

comment on column elt.partitions.succeeded_by is
'The newest regular load that succeeded; the same as load_id if the partition is complete.';

comment on column elt.partitions.grouped_by is
'The newest load that succeeded as a group; older rows of the resource no longer count.';

comment on column elt.partitions.backfilled_by is
'The newest load that succeeded as a window of a backfill.';

comment on column elt.partitions.loaded_by is
'The newest load that succeeded with records that were not rejected, and was no part.';

comment on column elt.partitions.stored_by is
'The newest load that inserted or updated rows.';

comment on column elt.partitions.deleted_by is
'The newest load that deleted rows.';

-- Within the transaction that writes the load, whoever writes it: an older version, or a person.
create or replace function elt.note_newest_load() returns trigger
language plpgsql as $$
declare
    -- Once a load has succeeded, a part says nothing of the whole.
    counts constant boolean := new.is_regular and not (new.is_part and exists (
        select from elt.partitions
        where (source, resource, partition) = (new.source, new.resource, new.partition)
            and succeeded_by <> new.load_id
    ));
begin
    insert into elt.partitions as known (
        source, resource, partition, load_id, succeeded_by, succeeded_at, grouped_by,
        backfilled_by, loaded_by, stored_by, deleted_by
    )
    select
        new.source,
        new.resource,
        new.partition,
        case when counts then new.load_id end,
        case when counts and has_succeeded then new.load_id end,
        case when counts and has_succeeded then new.ended_at end,
        case when new.is_group and has_succeeded then new.load_id end,
        case when new.is_backfill and has_succeeded then new.load_id end,
        case
            when new.extracted > new.rejected and has_succeeded and not new.is_part
                then new.load_id
        end,
        case when new.inserted + new.updated > 0 then new.load_id end,
        case when new.deleted > 0 then new.load_id end
    from (select new.state = 'succeeded' as has_succeeded) as outcome
    on conflict (source, resource, partition) do update set
        load_id = greatest(known.load_id, excluded.load_id),
        succeeded_by = greatest(known.succeeded_by, excluded.succeeded_by),
        succeeded_at = case
            when known.succeeded_by > excluded.succeeded_by or excluded.succeeded_by is null
                then known.succeeded_at
            else excluded.succeeded_at
        end,
        grouped_by = greatest(known.grouped_by, excluded.grouped_by),
        backfilled_by = greatest(known.backfilled_by, excluded.backfilled_by),
        loaded_by = greatest(known.loaded_by, excluded.loaded_by),
        stored_by = greatest(known.stored_by, excluded.stored_by),
        deleted_by = greatest(known.deleted_by, excluded.deleted_by);
    return null;
end
$$;

drop trigger if exists notes_newest_load on elt.loads;

create trigger notes_newest_load after insert or update on elt.loads
for each row execute function elt.note_newest_load();

-- Once, for the loads of older versions; the trigger's lock keeps others from adding any meanwhile.
insert into elt.partitions
select
    source,
    resource,
    partition,
    max(load_id) filter (where is_regular),
    max(load_id) filter (where is_regular and state = 'succeeded'),
    max(ended_at) filter (where is_regular and state = 'succeeded'),
    max(load_id) filter (where is_group and state = 'succeeded'),
    max(load_id) filter (where is_backfill and state = 'succeeded'),
    max(load_id) filter (where extracted > rejected and state = 'succeeded'),
    max(load_id) filter (where inserted + updated > 0),
    max(load_id) filter (where deleted > 0)
from elt.loads
where not exists (select from elt.partitions)
group by source, resource, partition;

create index if not exists loads_of_a_run on elt.loads (run_id);

create index if not exists loads_by_end on elt.loads (source, ended_at);

create index if not exists running_loads on elt.loads (source, resource) where state = 'running';

create index if not exists replays_of_a_load on elt.loads (replays) where replays is not null;

create index if not exists checkpoints_of_a_load on elt.checkpoints (load_id);

create index if not exists open_rejects on elt.rejects (load_id) where replayed_by is null;

create index if not exists rejects_of_a_replay on elt.rejects (replayed_by)
where replayed_by is not null;

create index if not exists changes_of_a_load on elt.schema_changes (load_id);

-- Those of older versions, for questions that elt.partitions answers.
drop index if exists
    elt.regular_loads,
    elt.regular_loads_of_a_partition,
    elt.groups_that_succeeded,
    elt.loads_with_records,
    elt.loads_with_changes,
    elt.loads_with_deletions,
    elt.backfills;

create table if not exists elt.refresh_tokens (
    chain text primary key,
    secret text not null,
    tokens text,
    renewals bigint not null default 0,
    renewed_at timestamptz,
    usable_until timestamptz
);

comment on table elt.refresh_tokens is
'The newest tokens of each login with a refresh token, encrypted with its first refresh token.';

comment on column elt.refresh_tokens.chain is
'A hash of the first refresh token, from which the others descend.';

comment on column elt.refresh_tokens.secret is
'The name of the secret that holds the first refresh token.';

comment on column elt.refresh_tokens.usable_until is
'When the access token is renewed at the latest; null if the provider states no end.';

create table if not exists elt.rates (
    source text primary key,
    due_at timestamptz not null
);

comment on table elt.rates is
'When the latest request of a source is sent, if all processes keep its rate together.';

alter table elt.loads add column if not exists is_comparable boolean not null default false;

comment on column elt.loads.is_comparable is
'Whether its number of records says what is usual: it read everything that regular loads read.';

create table if not exists elt.anomalies (
    anomaly_id bigint generated always as identity primary key,
    load_id bigint not null references elt.loads on delete cascade,
    found_at timestamptz not null default clock_timestamp(),
    kind text not null check (kind in ('schema_change', 'vanished_field', 'volume')),
    field text,
    usual bigint,
    description text not null,
    told_at timestamptz
);

create index if not exists anomalies_of_a_load on elt.anomalies (load_id);

comment on table elt.anomalies is
'What is unusual about loads that did not fail; one row per load, kind, and field or column.';

comment on column elt.anomalies.usual is
'The median number of records of earlier loads on this weekday; null for other kinds.';

comment on column elt.anomalies.told_at is
'When a run sent it to notify, or that it goes on since the load before; null until then.';

create table if not exists elt.usual_fields (
    source text not null,
    resource text not null,
    partition text not null,
    fields jsonb not null,
    primary key (source, resource, partition)
);

comment on table elt.usual_fields is
'In how many comparable loads in a row each field had a value (up to three); one row per partition.';
