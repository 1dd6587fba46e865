"""A disk that fills up during a load: committed rows stay, and the next load resumes.

The error is Postgres' own (SQLSTATE 53100), raised by a trigger; `tests/chaos` fills a real disk.
"""

from collections.abc import Callable
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection

from flows.errors import UnavailableError
from tests.load.memory_api import MemoryApi, items, load_api, load_pages

Query = Callable[..., list[tuple[Any, ...]]]

PAGES = [[{"id": number, "v": "x"}] for number in range(1, 6)]
IDS = "select id from raw_shop.items order by id"
STATES = "select state from elt.loads order by load_id"
FULL = """
create function public.fill() returns trigger language plpgsql as $$
begin
    raise exception 'could not extend file "base/1/2": No space left on device'
        using errcode = 'disk_full', hint = 'Check free disk space.';
end $$;

create trigger fill before {event} on {table} for each row when ({condition})
    execute function public.fill();
"""
MAKE_ROOM = "drop function public.fill cascade"


def fill(query: Query, table: str, event: str, condition: str) -> None:
    """Leave no room for what fulfils the condition."""
    query(FULL.format(table=table, event=event, condition=condition))


@pytest.mark.parametrize(
    ("disposition", "kept", "goes_on"),
    [
        ("merge", [0, 1, 2], True),
        ("append", [0, 1, 2], True),
        ("replace", [0], False),
    ],
)
def test_a_load_that_fills_the_disk_keeps_its_checkpoints_and_resumes_later(
    connection: Connection,
    query: Query,
    disposition: str,
    kept: list[int],
    goes_on: bool,
) -> None:
    resource = items(disposition=disposition)
    load_pages(connection, [{"id": 0, "v": "x"}], disposition=disposition)
    fill(query, "raw_shop.items", "insert", "new.id = 3")
    with pytest.raises(UnavailableError, match=r"ran out of something.*No space left"):
        load_api(connection, MemoryApi(PAGES), resource)
    assert query(IDS) == [(number,) for number in kept]
    query(MAKE_ROOM)
    api = MemoryApi(PAGES)
    load_api(connection, api, resource)
    assert (api.asked[0][1] is not None) == goes_on
    assert query(IDS) == [(number,) for number in ([0] if goes_on else []) + [1, 2, 3, 4, 5]]
    assert query(STATES) == [("succeeded",), ("failed",), ("succeeded",)]
    [(error,)] = query("select error from elt.loads where load_id = 2")
    assert "No space left on device" in error


def test_a_disk_that_is_full_is_no_records_fault(connection: Connection, query: Query) -> None:
    """Nothing is rejected because of it."""
    load_pages(connection, [{"id": 0, "v": "x"}])
    fill(query, "raw_shop.items", "insert", "true")
    with pytest.raises(UnavailableError):
        load_pages(connection, *PAGES, checkpoint_rows=100, max_rejects=100)
    assert query("select count(*) from elt.rejects") == [(0,)]


def test_a_disk_without_room_even_for_the_ledger_is_named_all_the_same(
    connection: Connection, query: Query, caplog: pytest.LogCaptureFixture
) -> None:
    """The entry stays open; the next load closes it."""
    load_pages(connection, [{"id": 0, "v": "x"}])
    fill(query, "elt.loads", "update", "new.pages > 2 or new.state = 'failed'")
    with pytest.raises(UnavailableError, match="No space left"):
        load_api(connection, MemoryApi(PAGES), items())
    assert "Could not record in the ledger that load 2 failed" in caplog.text
    assert query(IDS) == [(0,), (1,), (2,)]
    query(MAKE_ROOM)
    load_api(connection, MemoryApi(PAGES), items())
    assert query(IDS) == [(number,) for number in range(6)]
    assert query(STATES) == [("succeeded",), ("abandoned",), ("succeeded",)]
