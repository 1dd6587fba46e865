-- The three roles of a warehouse; safe to run twice, and over schemas that one role made before.
--     psql postgresql://admin@host/warehouse --file blocks/roles.sql
-- The admin is a superuser, or may create roles and owns the database. Then give each role its
-- password, `\password loader` in psql; without one Postgres lets none of them in from elsewhere.

do $$
declare
    wanted text;
begin
    foreach wanted in array array['loader', 'transformer', 'reporter'] loop
        if not exists (select from pg_roles where rolname = wanted) then
            execute format('create role %I login', wanted);
        end if;
    end loop;
    if not (select rolsuper from pg_roles where rolname = current_user) then
        grant loader, transformer to current_user;
    end if;
end
$$;

-- What is the transformer's, the loader can't write; it may take that role to set views on a raw
-- table aside while a column changes its type, and does so for nothing else.
alter role loader noinherit;
grant transformer to loader;

do $$
declare
    makers text := 'grant connect, create, temporary on database %I to loader, transformer';
begin
    execute format(makers, current_database());
    execute format('grant connect on database %I to reporter', current_database());
end
$$;

-- Schemas that are another role's, with what is that role's in them, go to who works with them now.
do $$
declare
    earlier record;
    relation regclass;
begin
    for earlier in
        select pg_namespace.oid, nspname as name, nspowner, owner
        from pg_namespace
        cross join lateral (select case
            when nspname ~ '^(elt$|raw_)' then 'loader'
            when nspname ~ '^(dbt|((staging|intermediate|marts|snapshots|failures)(__audit)?))$'
                then 'transformer'
        end) as its (owner)
        where pg_get_userbyid(nspowner) <> owner
    loop
        for relation in
            select oid from pg_class
            where relnamespace = earlier.oid and relowner = earlier.nspowner
                and relkind in ('r', 'p', 'v', 'm')
        loop
            execute format('alter table %s owner to %I', relation, earlier.owner);
        end loop;
        execute format('alter schema %I owner to %I', earlier.name, earlier.owner);
    end loop;
end
$$;

create schema if not exists elt authorization loader;
create schema if not exists marts authorization transformer;

-- The transformer reads all that is loaded: what is there, and what will be.
alter default privileges for role loader grant usage on schemas to transformer;
alter default privileges for role loader grant select on tables to transformer;

do $$
declare
    loaded text;
begin
    for loaded in select nspname from pg_namespace where pg_get_userbyid(nspowner) = 'loader' loop
        execute format('grant usage on schema %I to transformer', loaded);
        execute format('grant select on all tables in schema %I to transformer', loaded);
    end loop;
end
$$;

-- The reporter reads what is published, and nothing else.
grant usage on schema marts to reporter;
grant select on all tables in schema marts to reporter;
alter default privileges for role transformer in schema marts grant select on tables to reporter;
