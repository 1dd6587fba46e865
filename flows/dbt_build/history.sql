create table if not exists dbt.builds (
    build_id bigint generated always as identity primary key,
    run_id text,
    state text not null check (state in ('running', 'published', 'failed', 'abandoned')),
    started_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz,
    reason text not null,
    code text not null,
    loads jsonb not null,
    error text,
    results jsonb,
    manifest bytea,
    published_manifest bytea
);

alter table dbt.builds add column if not exists docs bytea;
alter table dbt.builds add column if not exists is_recorded boolean;
alter table dbt.builds add column if not exists full_refresh boolean;

comment on table dbt.builds is
'What each dbt build built, why, and how it ended; one row per build.';

comment on column dbt.builds.code is
'Checksum of the dbt project.';

comment on column dbt.builds.loads is
'The last load that had changed each raw table when the build began.';

comment on column dbt.builds.results is
'dbt''s run_results.json, with the nodes that an earlier build had built; null after some time.';

comment on column dbt.builds.manifest is
'dbt''s manifest.json, gzip; null after some time.';

comment on column dbt.builds.published_manifest is
'The manifest of all that is published, gzip; of the last published build, and kept until the next.';

comment on column dbt.builds.docs is
'dbt''s documentation of what was published then, one HTML page, gzip; null after some time.';

comment on column dbt.builds.is_recorded is
'Listed what it made in the audit schemas, and copied incremental models; null for earlier versions.';

comment on column dbt.builds.full_refresh is
'Rebuilt incremental models from all rows; null for earlier versions.';

create table if not exists dbt.built_tables (
    source text not null,
    resource text not null,
    load_id bigint not null,
    built_at timestamptz not null default clock_timestamp(),
    primary key (source, resource)
);

comment on table dbt.built_tables is
'Up to which load all that depends on a raw table is published; one row per raw table.';
