-- The three roles of a warehouse; safe to run twice, and over schemas that one role made before.
--     psql postgresql://admin@host/warehouse --file blocks/roles.sql
-- The admin is a superuser, or may create roles and owns the database. Then give each role its
-- password, `\password loader` in psql; without one Postgres lets none of them in from elsewhere.
--
-- What this project did not make keeps its owner and its grants. Where somebody else's role or
-- schema has a name that is needed here, an error says so, and nothing at all is done.

create or replace function pg_temp.columns_of(relation regclass) returns text[]
language sql as $$
select array(
    select attname::text from pg_attribute
    where attrelid = relation and attnum > 0 and not attisdropped
)
$$;

create or replace function pg_temp.holds_anything(schema oid) returns boolean
language sql as $$
select exists (
    select from pg_depend
    where refclassid = 'pg_namespace'::regclass and refobjid = schema and deptype = 'n'
)
$$;

-- The schemas of the ledger and of the builds, known as in flows/postgres/schemas.py.
create or replace function pg_temp.recorded_schemas() returns setof pg_namespace
language sql as $$
select pg_namespace.*
from pg_namespace
join (values
    ('elt', 'The ledger of all loads', 'elt.loads',
     '{load_id,source,resource,partition,extracted,unchanged,rejected}'::text[]),
    ('dbt', 'What dbt has built', 'dbt.builds',
     '{build_id,run_id,state,code,loads,published_manifest}')
) as own (name, holds, main, columns) on own.name = nspname
where obj_description(pg_namespace.oid, 'pg_namespace') like holds || ', version %'
    or pg_temp.columns_of(to_regclass(main)) @> columns
$$;

-- Whether a load made the table, known as in flows/load/ownership.py.
create or replace function pg_temp.is_loaded(relation regclass) returns boolean
language plpgsql as $$
declare
    is_ours boolean;
begin
    select pg_get_expr(adbin, adrelid) like '%elt.load_id%' into is_ours
    from pg_attribute
    join pg_attrdef on adrelid = attrelid and adnum = attnum
    where attrelid = relation and attname = '_load_id';
    if is_ours or to_regclass('elt.loads') is null
        or not pg_temp.columns_of(relation) @> '{_load_id}'
    then
        return coalesce(is_ours, false);
    end if;
    execute format(
        'select exists (select from elt.loads'
        ' where (''raw_'' || source, resource) = (select nspname, relname from pg_class'
        ' join pg_namespace on pg_namespace.oid = relnamespace where pg_class.oid = %s)'
        ' and load_id::text = (select _load_id::text from %s limit 1))',
        relation::oid, relation
    ) into is_ours;
    return is_ours;
end
$$;

-- Whether a load made the schema: a table in it, or where it is empty, an entry of the ledger.
create or replace function pg_temp.is_raw_schema(schema oid, name text) returns boolean
language plpgsql as $$
declare
    is_ours boolean := false;
begin
    if pg_temp.holds_anything(schema) then
        return exists (
            select from pg_class
            where relnamespace = schema and relkind in ('r', 'p') and pg_temp.is_loaded(oid)
        );
    end if;
    if to_regclass('elt.loads') is not null then
        execute 'select exists (select from elt.loads where ''raw_'' || source = $1)'
        into is_ours using name;
    end if;
    return is_ours;
end
$$;

-- The schemas that would be another role's by their name, and whether this project made them.
create or replace function pg_temp.named_schemas()
returns table (schema oid, name text, former oid, owner text, is_ours boolean)
language sql as $$
select
    oid, nspname, nspowner, its.owner,
    case
        when its.owner = 'loader' and nspname <> 'elt' then pg_temp.is_raw_schema(oid, nspname)
        when nspname !~ '__audit$' and not pg_temp.holds_anything(oid) then true
        when nspname in ('elt', 'dbt') then oid in (select oid from pg_temp.recorded_schemas())
        -- What builds publish has no mark of its own: who made the records made this, too.
        else nspowner in (select nspowner from pg_temp.recorded_schemas())
    end
from pg_namespace
cross join lateral (select case
    when nspname ~ '^(elt$|raw_)' then 'loader'
    when nspname ~ '^(dbt|((staging|intermediate|marts|snapshots|failures)(__audit)?))$'
        then 'transformer'
end) as its (owner)
where pg_get_userbyid(nspowner) <> its.owner
order by nspname  -- all of it is read before any of it changes
$$;

-- Whether a role was made here, by this version or an earlier one, or has nothing yet.
create or replace function pg_temp.is_our_role(name text) returns boolean
language sql as $$
select coalesce(shobj_description(pg_roles.oid, 'pg_authid') like '%blocks/roles.sql%', false)
    or exists (
        select from pg_auth_members
        where roleid = to_regrole('transformer') and member = to_regrole('loader')
            and not (select rolinherit from pg_roles where rolname = 'loader')
    )
    or exists (select from pg_temp.recorded_schemas() where nspowner = pg_roles.oid)
    or not (
        exists (
            select from pg_shdepend
            where refclassid = 'pg_authid'::regclass and refobjid = pg_roles.oid
        )
        or exists (select from pg_auth_members where member = pg_roles.oid)
    )
from pg_roles
where rolname = name
$$;

-- One statement, so that all of it is done or nothing.
do $$
declare
    wanted text;
    its record;
    relation regclass;
begin
    foreach wanted in array array['loader', 'transformer', 'reporter'] loop
        if to_regrole(wanted) is not null and not pg_temp.is_our_role(wanted) then
            raise exception 'The role % is there already, and blocks/roles.sql did not make it.',
                wanted
            using hint = format('Rename it. If it is meant for this, say so: comment on role %I is'
                ' ''For blocks/roles.sql'';', wanted);
        end if;
        if to_regrole(wanted) is null then
            execute format('create role %I login', wanted);
        end if;
        if shobj_description(to_regrole(wanted), 'pg_authid') is null then
            execute format('comment on role %I is ''Made by blocks/roles.sql.''', wanted);
        end if;
    end loop;
    if not (select rolsuper from pg_roles where rolname = current_user) then
        grant loader, transformer to current_user;
    end if;

    -- What is the transformer's, the loader can't write; it may take that role to set views on a
    -- raw table aside while a column changes its type, and does so for nothing else.
    alter role loader noinherit;
    grant transformer to loader;

    execute format(
        'grant connect, create, temporary on database %I to loader, transformer',
        current_database()
    );
    execute format('grant connect on database %I to reporter', current_database());

    for its in select * from pg_temp.named_schemas() where not is_ours loop
        if its.name in ('elt', 'dbt', 'marts') then
            raise exception 'Schema % is there already, and this project did not make it.',
                its.name
            using hint = 'Rename it, or use another database; then run this again.';
        end if;
        raise warning 'Schema % is left as it is: this project did not make it.', its.name
        using hint = format('If loads or builds are to write there: alter schema %I owner to %I;',
            its.name, its.owner);
    end loop;

    -- What an earlier role made goes to who works with it now; all else in there stays its own.
    for its in select * from pg_temp.named_schemas() where is_ours loop
        for relation in
            select oid from pg_class
            where relnamespace = its.schema and relowner = its.former
                and relkind in ('r', 'p', 'v', 'm')
                and case its.name
                    when 'elt' then relname in
                        ('loads', 'partitions', 'checkpoints', 'rejects', 'schema_changes',
                            'columns', 'resets', 'refresh_tokens', 'rates', 'anomalies',
                            'usual_fields')
                    when 'dbt' then relname in ('builds', 'built_tables')
                    else its.owner = 'transformer' or pg_temp.is_loaded(oid)
                end
        loop
            execute format('alter table %s owner to %I', relation, its.owner);
        end loop;
        if its.name = 'elt' and to_regproc('elt.note_newest_load') is not null then
            execute format('alter function elt.note_newest_load owner to %I', its.owner);
        end if;
        execute format('alter schema %I owner to %I', its.name, its.owner);
        if exists (
            select from pg_class where relnamespace = its.schema and relowner = its.former
        ) then
            execute format('grant usage on schema %I to %I', its.name, pg_get_userbyid(its.former));
        end if;
    end loop;

    create schema if not exists elt authorization loader;
    create schema if not exists marts authorization transformer;

    -- The transformer reads all that is loaded: what is there, and what will be.
    alter default privileges for role loader grant usage on schemas to transformer;
    alter default privileges for role loader grant select on tables to transformer;
    for wanted in select nspname from pg_namespace where nspowner = to_regrole('loader') loop
        execute format('grant usage on schema %I to transformer', wanted);
    end loop;

    -- The reporter reads what is published, and nothing else.
    grant usage on schema marts to reporter;
    alter default privileges for role transformer in schema marts
    grant select on tables to reporter;

    for relation, wanted in
        select pg_class.oid, case rolname when 'loader' then 'transformer' else 'reporter' end
        from pg_class
        join pg_namespace on pg_namespace.oid = relnamespace and nspowner = relowner
        join pg_roles on pg_roles.oid = relowner
        where relkind in ('r', 'p', 'v', 'm')
            and (rolname = 'loader' or (rolname, nspname) = ('transformer', 'marts'))
    loop
        execute format('grant select on table %s to %I', relation, wanted);
    end loop;
end
$$;
