"""Tables that somebody made by hand in a raw schema: no load changes them, whatever their name."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.errors import ConfigurationError
from flows.load.loader import load
from flows.load.options import LoadOptions
from flows.load.replay import replay
from flows.load.reset import reset
from flows.page import Page, Resume
from flows.source import Partition, Window
from tests.load.memory_api import MemoryApi, items, load_api, load_pages

Query = Callable[..., list[tuple[Any, ...]]]

DOCS = Path(__file__).parents[2] / "docs" / "loading.md"
PLAIN = "create table raw_shop.items (id bigint primary key, note text)"
BY_HAND = {
    "a table": PLAIN,
    "with columns of our names": PLAIN.replace(
        "note text", "note text, _loaded_at timestamptz default now(), _load_id bigint default 1"
    ),
    "with another type": PLAIN.replace("note text", "note text, _load_id text"),
    "without columns": "create table raw_shop.items ()",
    "a view": "create view raw_shop.items as select 1::bigint as id, 'x' as note",
    "of another resource's rows": "create table raw_shop.items as select * from raw_shop.orders",
}
STATE = """
select pg_get_userbyid(relowner), relkind, obj_description(pg_class.oid), array(
    select row(attname, atttypid::regtype) from pg_attribute
    where attrelid = pg_class.oid and attnum > 0 order by attnum
)::text
from pg_class where oid = 'raw_shop.items'::regclass
"""
REFUSED = r"raw_shop\.items .*no load of this project made it.*Rename or drop it"


def refused() -> Any:
    return pytest.raises(ConfigurationError, match=REFUSED)


@pytest.fixture
def loaded(connection: Connection) -> None:
    """Another resource of the source is there."""
    load_pages(connection, [{"id": 1, "note": "ours"}], name="orders")


@pytest.mark.parametrize("made", BY_HAND.values(), ids=BY_HAND)
@pytest.mark.usefixtures("loaded")
def test_a_table_made_by_hand_is_refused_by_name_and_stays_as_it_is(
    connection: Connection, query: Query, made: str
) -> None:
    """Repeatedly: a failed load of it does not make it ours."""
    query(made)
    before = query(STATE), query("select items::text from raw_shop.items")
    for declared in ({}, {"disposition": "append"}, {"disposition": "replace"}):
        for options in (LoadOptions(), LoadOptions(full_refresh=True)):
            with refused():
                load_pages(connection, [{"id": 2, "new": 1}], options=options, **declared)
    assert (query(STATE), query("select items::text from raw_shop.items")) == before
    assert query("select count(*) from elt.columns where table_name = 'items'") == [(0,)]


@pytest.mark.usefixtures("loaded")
def test_a_reset_leaves_a_table_made_by_hand_alone(connection: Connection, query: Query) -> None:
    query(PLAIN)
    query("insert into raw_shop.items values (1, 'theirs')")
    with refused():
        reset(connection, "shop", "items")
    assert query("select note from raw_shop.items") == [("theirs",)]


def test_a_replay_leaves_a_table_made_by_hand_alone(
    connection: Connection, database: URL, query: Query
) -> None:
    load_pages(connection, [{"id": 1, "v": "soon"}], columns={"v": "date"}, max_rejects=1)
    query("drop table if exists raw_shop.items")
    query(PLAIN)
    with refused():
        replay(lambda: psycopg2.connect(libpq(database)), "shop", items(), Partition())
    assert query("select count(*) from raw_shop.items") == [(0,)]


@pytest.mark.parametrize("disposition", ["merge", "append", "replace"])
@pytest.mark.usefixtures("loaded")
def test_a_table_that_is_made_by_hand_while_a_load_is_at_work_is_refused_too(
    connection: Connection, query: Query, disposition: str
) -> None:
    def pages(window: Window, resume: Resume | None) -> Iterator[Page]:
        query(PLAIN)
        yield from MemoryApi([[{"id": 1}]])(window, resume)

    with refused():
        load(connection, "shop", items(disposition=disposition), Partition(), pages)
    assert query("select count(*) from raw_shop.items") == [(0,)]


@pytest.mark.parametrize("disposition", ["merge", "append", "replace"])
@pytest.mark.usefixtures("loaded")
def test_its_owner_can_let_loads_use_it_with_the_statement_in_the_docs(
    connection: Connection, query: Query, disposition: str
) -> None:
    [statement] = re.findall(r"^    (alter table raw_n[^;]*;)$", DOCS.read_text(), re.MULTILINE)
    query(PLAIN)
    query("insert into raw_shop.items values (1, 'theirs')")
    query(re.sub(r"raw_northwind\.\w+", "raw_shop.items", statement))
    load_pages(connection, [{"id": 2, "note": "ours"}], disposition=disposition, max_shrinkage=1)
    assert ("ours",) in query("select note from raw_shop.items")
    kept = disposition != "replace"
    assert query("select note from raw_shop.items where _load_id = 0") == [("theirs",)] * kept


def test_a_table_that_its_owner_made_anew_of_a_loads_rows_is_used(
    connection: Connection, query: Query
) -> None:
    """Its rows contain their load's number; the default of `_load_id` is not copied."""
    load_pages(connection, [{"id": 1}], [{"id": 2}])
    query("create table raw_shop.copy as select * from raw_shop.items order by id")
    query("drop table raw_shop.items; alter table raw_shop.copy rename to items")
    query("alter table raw_shop.items add primary key (id)")
    assert load_pages(connection, [{"id": 2}, {"id": 3}]).inserted == 1


def test_an_emptied_table_of_ours_is_used(connection: Connection, query: Query) -> None:
    load_pages(connection, [{"id": 1}])
    query("truncate raw_shop.items; comment on table raw_shop.items is 'What we sell'")
    query("delete from elt.checkpoints; delete from elt.loads; delete from elt.columns")
    load_api(connection, MemoryApi([[{"id": 1}]]), items())
    assert query("select id from raw_shop.items") == [(1,)]


MARK = "default current_setting('elt.load_id')::bigint"
COLUMNS = f"(id bigint primary key, _loaded_at timestamptz, _load_id bigint not null {MARK})"
SPREAD = {
    "partitioned": f"create table raw_shop.items {COLUMNS} partition by range (id);"
    " create table low partition of raw_shop.items for values from (0) to (10);"
    " create table high partition of raw_shop.items for values from (10) to (20)",
    "without partitions": f"create table raw_shop.items {COLUMNS} partition by list (id)",
    "with a child": f"create table raw_shop.items {COLUMNS};"
    " create table low (primary key (id)) inherits (raw_shop.items)",
}


@pytest.mark.parametrize("disposition", ["merge", "append", "replace"])
@pytest.mark.parametrize("made", SPREAD.values(), ids=SPREAD)
@pytest.mark.usefixtures("loaded")
def test_a_table_whose_rows_are_in_several_tables_is_refused(
    connection: Connection, query: Query, made: str, disposition: str
) -> None:
    """Two rows of it may have one `ctid`, so a merge would change both."""
    query(made)
    with pytest.raises(
        ConfigurationError, match=r"raw_shop\.items is partitioned .*ordinary table"
    ):
        load_pages(connection, [{"id": 1}, {"id": 11}], disposition=disposition)
    assert query("select count(*) from raw_shop.items") == [(0,)]


@pytest.mark.usefixtures("loaded")
def test_a_table_that_is_itself_a_partition_is_used(connection: Connection, query: Query) -> None:
    query(f"create table raw_shop.everything {COLUMNS} partition by range (id)")
    query("create table raw_shop.items partition of raw_shop.everything default")
    query(f"alter table raw_shop.items alter _load_id set {MARK}")
    load_pages(connection, [{"id": 1}, {"id": 11}])
    assert load_pages(connection, [{"id": 1}, {"id": 12}]).inserted == 1
