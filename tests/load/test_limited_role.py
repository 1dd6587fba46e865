"""Promises of a role without superuser: the grants in docs/loading.md are all that it needs."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.errors import ConfigurationError
from flows.load.replay import replay
from flows.source import Partition
from tests.load.memory_api import items, load_pages

Query = Callable[..., list[tuple[Any, ...]]]

pytestmark = pytest.mark.no_ledger
DOCS = Path(__file__).parents[2] / "docs" / "loading.md"
ROLE = f"loader_{os.getpid()}"
IDS = "select id from raw_shop.items order by id"


def documented(database: str) -> list[list[str]]:
    """The SQL statements of each block in the docs, for this test's role, database and source."""
    blocks = re.findall(r"```sql\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(blocks) == 2, "one block with the right to create schemas, one without"
    names = {"loader": ROLE, "warehouse": database, "northwind": "shop"}
    for old, new in names.items():
        blocks = [re.sub(rf"(?<![a-z]){old}(?![a-z])", new, block) for block in blocks]
    return [[part.strip() for part in block.split(";") if part.strip()] for block in blocks]


@pytest.fixture
def admin(database: URL, query: Query) -> Iterator[Query]:
    """A superuser in a database that grants nobody anything; the role is gone afterwards."""
    query(f'revoke all on database "{database.database}" from public')
    query("revoke all on schema public from public")
    yield query
    if query("select 1 from pg_roles where rolname = %s", ROLE):
        query(f"drop owned by {ROLE} cascade")
        query(f"drop role {ROLE}")


def log_in(database: URL) -> Connection:
    """A session of the role."""
    return psycopg2.connect(libpq(database.set(username=ROLE, password="of its own")))


@pytest.fixture(params=[0, 1], ids=["creates its schemas", "finds its schemas"])
def loader(request: pytest.FixtureRequest, database: URL, admin: Query) -> Iterator[Connection]:
    """The role's session, after the grants of one of the blocks."""
    for statement in documented(str(database.database))[request.param]:
        admin(statement)
    with closing(log_in(database)) as connection:
        yield connection


def test_a_role_with_the_documented_grants_loads_and_changes_its_tables(
    loader: Connection, admin: Query
) -> None:
    assert admin("select rolsuper, rolcreatedb from pg_roles where rolname = %s", ROLE) == [
        (False, False)
    ]
    for disposition in ("merge", "append", "replace"):
        load_pages(loader, [{"id": disposition, "v": 1}], disposition=disposition)
    load_pages(loader, [{"id": "merge", "v": "x", "new": 1}], [{"id": "merge", "v": [1]}])
    assert admin("select id, v #>> '{0}', new from raw_shop.items order by id") == [
        ("merge", "1", None), ("replace", None, None),
    ]  # fmt: skip


def test_views_of_the_roles_own_survive_a_wider_column(loader: Connection, admin: Query) -> None:
    load_pages(loader, [{"id": 1, "v": 1}])
    with loader, loader.cursor() as cursor:
        cursor.execute("create view elt.items as select id, v from raw_shop.items")
        cursor.execute("comment on column elt.items.v is 'kept'")
        cursor.execute("grant select on elt.items to public")
    load_pages(loader, [{"id": 2, "v": "x"}])
    assert admin("select v from elt.items order by id") == [("1",), ("x",)]
    assert admin("select col_description('elt.items'::regclass, 2)") == [("kept",)]
    assert (
        admin("select pg_get_userbyid(relowner) from pg_class where relname = 'items'")
        == [(ROLE,)] * 2
    )


def test_the_role_replays(loader: Connection, database: URL, admin: Query) -> None:
    load_pages(loader, [{"id": 1, "v": "soon"}], columns={"v": "date"}, max_rejects=1)
    [entry] = replay(lambda: log_in(database), "shop", items(), Partition())
    assert entry.inserted == 1
    assert admin(IDS) == [(1,)]


def test_the_right_to_create_schemas_is_not_needed_once_they_are_there(
    loader: Connection, database: URL, admin: Query
) -> None:
    load_pages(loader, [{"id": 1}])
    admin(f'revoke create on database "{database.database}" from {ROLE}')
    load_pages(loader, [{"id": 2, "new": 1}])
    assert admin(IDS) == [(1,), (2,)]


MISSING = [
    pytest.param(0, "create", "", "permission denied for database", id="to create schemas"),
    pytest.param(0, "temporary", "", "permission denied to create temporary", id="temporary"),
    pytest.param(1, "temporary", "", "permission denied to create temporary", id="temporary, too"),
    pytest.param(1, "", "raw_shop", "permission denied for schema raw_shop", id="the raw schema"),
    pytest.param(1, "", "elt", "permission denied for schema elt", id="the ledger's schema"),
]


@pytest.mark.parametrize(("block", "privilege", "schema", "said"), MISSING)
def test_a_privilege_that_is_missing_is_a_configuration_error_that_names_it(
    database: URL, admin: Query, block: int, privilege: str, schema: str, said: str
) -> None:
    """Each of the documented grants is needed."""
    for statement in documented(str(database.database))[block]:
        admin(statement)
    if privilege:
        admin(f'revoke {privilege} on database "{database.database}" from {ROLE}')
    else:
        admin(f"alter schema {schema} owner to current_user")
    with closing(log_in(database)) as connection:
        with pytest.raises(ConfigurationError, match=said) as failure:
            load_pages(connection, [{"id": 1}])
        assert "docs/loading.md lists the grants" in str(failure.value)
    if privilege:
        admin(f'grant {privilege} on database "{database.database}" to {ROLE}')
    else:
        admin(f"alter schema {schema} owner to {ROLE}")
    with closing(log_in(database)) as connection:
        load_pages(connection, [{"id": 1}])


def test_a_view_of_somebody_elses_that_is_in_the_way_is_a_configuration_error(
    loader: Connection, admin: Query
) -> None:
    load_pages(loader, [{"id": 1, "v": 1}])
    admin("create schema other")
    admin("create view other.items as select v from raw_shop.items")
    with pytest.raises(ConfigurationError, match=r"schema other.*and the views on their"):
        load_pages(loader, [{"id": 2, "v": "x"}])
    assert admin("select v from other.items") == [(1,)]
    admin(f"alter view other.items owner to {ROLE}")
    admin(f"grant usage, create on schema other to {ROLE}")
    load_pages(loader, [{"id": 2, "v": "x"}])
    assert admin("select v from other.items order by v") == [("1",), ("x",)]


def test_a_replay_without_a_privilege_is_a_configuration_error_too(
    database: URL, admin: Query
) -> None:
    admin(f"create role {ROLE} login password 'of its own'")
    admin(f'grant connect on database "{database.database}" to {ROLE}')
    with pytest.raises(ConfigurationError, match="permission denied for database"):
        replay(lambda: log_in(database), "shop", items(), Partition())
