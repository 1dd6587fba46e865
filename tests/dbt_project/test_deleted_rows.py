"""A staging model leaves out what the census of its resource lacks."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection

from flows.dbt_build import history
from flows.errors import UnavailableError
from flows.load.reset import reset
from flows.source import FullList, Partition
from tests.load.memory_api import MemoryApi, items, load_api, load_pages

Query = Callable[..., list[tuple[Any, ...]]]

DOCS = Path(__file__).parents[2] / "docs/sources.md"
SHOWN = "select coalesce(array_agg(id order by id), '{}') from staging"
BY_ACCOUNT = """
select items.account, items.id from raw_shop.items
left join raw_shop.listed_ids as listed
    on items.account = listed.account and items.id = listed.id
where listed._deleted_at is null
"""


def documented() -> str:
    """The model of docs/sources.md, as dbt compiles it."""
    [model] = re.findall(r"```sql\n(select\n[^`]*listed_ids[^`]*)```", DOCS.read_text())
    return re.sub(r"\{\{ source\('shop', '(\w+)'\) \}\}", r"raw_shop.\1", model)


def test_a_row_is_left_out_once_the_census_lacks_its_id(
    connection: Connection, query: Query
) -> None:
    def load(name: str, *ids: int, **declared: Any) -> None:
        load_pages(connection, [{"id": number} for number in ids], name=name, **declared)

    def take_census(*ids: int) -> None:
        load("listed_ids", *ids, deletes=FullList(), max_shrinkage=1)

    load("items", 1, 2, 3)
    take_census(1, 2, 3)
    query(f"create view staging as {documented()}")
    assert query(SHOWN) == [([1, 2, 3],)]
    take_census(1, 2)
    assert query(SHOWN) == [([1, 2],)]
    load("items", 4)
    assert query(SHOWN) == [([1, 2, 4],)], "no census had 4 yet"
    newest = query("select max(loaded_at) from staging")
    take_census(1, 2, 3, 4)
    assert query(SHOWN) == [([1, 2, 3, 4],)], "3 is back"
    back = "select loaded_at > %s from staging where id = 3"
    assert query(back, newest[0][0]) == [(True,)], "incremental models see it"
    reset(connection, "shop", "listed_ids")
    assert query(SHOWN) == [([1, 2, 3, 4],)]


def test_each_account_has_a_census_of_its_own(connection: Connection, query: Query) -> None:
    """Of one account it fails; then its rows stay as they were."""
    both = {name: Partition(name, {"account": name}) for name in "AB"}
    declared: dict[str, Any] = {
        "key": ("account", "id"),
        "partitions": tuple(both.values()),
        "partition_columns": ("account",),
    }
    census = {"name": "listed_ids", "deletes": FullList(), **declared}
    for account in both.values():
        load_pages(connection, [{"id": 1}, {"id": 2}], partition=account, **declared)
        load_pages(connection, [{"id": 1}, {"id": 2}], partition=account, **census)
    load_pages(connection, [{"id": 3}], partition=both["A"], **declared)
    with pytest.raises(UnavailableError):
        load_api(connection, MemoryApi([[]], fails_at=0), items(**census), partition=both["A"])
    load_pages(connection, [{"id": 1}], partition=both["B"], **census)
    query(f"create view staging as {BY_ACCOUNT}")
    shown = query("select account, array_agg(id order by id) from staging group by account")
    assert dict(shown) == {"A": [1, 2, 3], "B": [1]}


def test_a_census_that_changes_what_is_shown_has_changed_its_table(connection: Connection) -> None:
    """So the next build rebuilds what reads it, and else nothing."""

    def stale(*ids: int) -> bool:
        load_pages(
            connection, [{"id": each} for each in ids], name="listed_ids", deletes=FullList()
        )
        with connection, connection.cursor() as cursor:
            history.prepare(cursor)
            [table] = history.raw_tables(cursor)
            build = history.begin(cursor, None, "", "", {})
            history.mark_published(cursor, build, {}, [table], [])
        return table.is_stale

    assert [stale(1, 2), stale(1, 2), stale(1), stale(1), stale(1, 2)] == [
        *(True, False, True, False, True)
    ]
