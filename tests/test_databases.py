"""The databases of the tests: each is as new, whatever the test before did to it."""

import pytest
from conftest import rows

from tests.databases import Databases

LEFT_BEHIND = [
    "insert into elt.loads (source, resource, partition, state) values ('shop', 'a', '', 'failed')",
    "alter table elt.loads add column extra int",
    "comment on schema elt is 'of an older version'",
    "grant select on elt.loads to public",
    "create index by_error on elt.loads (error)",
    "drop schema elt cascade",
    "create view elt.failed as select * from elt.loads",
    "create schema raw_shop; create table raw_shop.a (id int); drop schema public",
    "create publication all_of_it for all tables",
]
STATE = """
select
    (select string_agg(nspname, ' ' order by nspname) from pg_namespace where nspname !~ '^pg_'),
    (select string_agg(attname, ' ' order by attnum) from pg_attribute
        where attrelid = 'elt.loads'::regclass and attnum > 0),
    obj_description('elt'::regnamespace),
    (select relacl from pg_class where oid = 'elt.loads'::regclass),
    (select count(*) from pg_class where relnamespace = 'elt'::regnamespace),
    (select count(*) from elt.loads),
    (select count(*) from elt.partitions),
    (select count(*) from pg_publication)
"""
NEXT_ID = """
insert into elt.loads (source, resource, partition, state) values ('a', 'b', '', 'running')
returning load_id
"""


@pytest.mark.parametrize("statement", LEFT_BEHIND)
def test_a_database_is_used_again_as_it_was_created(databases: Databases, statement: str) -> None:
    with databases.empty(has_ledger=True) as url:
        before = rows(url, STATE)
        rows(url, statement)
    with databases.empty(has_ledger=True) as url:
        assert rows(url, STATE) == before
        assert rows(url, NEXT_ID) == [(1,)]


def test_nothing_is_left_of_deleted_rows(databases: Databases) -> None:
    """New rows would be written among them, and not be read in the order they were written."""
    with databases.empty(has_ledger=True) as url:
        rows(url, NEXT_ID)
    with databases.empty(has_ledger=True) as again:
        assert again == url
        assert rows(again, "select pg_relation_size('elt.loads')") == [(0,)]


def test_one_that_is_to_be_empty_has_no_ledger(databases: Databases) -> None:
    with databases.empty() as url:
        rows(url, "create schema elt; create table elt.loads (id int)")
    with databases.empty() as again:
        assert again == url
        assert rows(again, "select to_regnamespace('elt')") == [(None,)]
