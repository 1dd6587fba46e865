"""Promises about memory: it stays bounded whatever the records, here and in Postgres."""

import re
from pathlib import Path
from typing import Any

import pytest
from memory_api import load_pages
from psycopg2.extensions import connection as Connection

MIB = 1 << 20
COLUMNS = 1500


def wide(number: int, value: Any, columns: int = COLUMNS) -> dict[str, Any]:
    return {"id": number, **{f"c{column}": value for column in range(columns)}}


def peak_bytes(connection: Connection) -> int:
    """The most memory that the connection's backend had, its shared buffers included."""
    status = Path(f"/proc/{connection.info.backend_pid}/status")
    if not status.exists():
        pytest.skip("the server's processes can't be seen from here")
    [kibibytes] = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
    return int(kibibytes) << 10


@pytest.mark.parametrize(
    ("value", "fates"),
    [("fits", (4, 0)), ("has no room", (0, 4))],
    ids=["rows with room in their table", "rows over 8,160 bytes"],
)
def test_wide_records_take_little_memory_of_postgres(
    connection: Connection, value: str, fates: tuple[int, int]
) -> None:
    records = [wide(number, value) for number in range(4)]
    for repeated in range(2):
        entry = load_pages(connection, records, max_rejects=4)
        inserted, rejected = fates
        assert (entry.inserted, entry.rejected) == (0 if repeated else inserted, rejected)
    assert peak_bytes(connection) < 100 * MIB


def test_a_stage_that_is_made_anew_keeps_its_rows_in_their_order(
    connection: Connection, query: Any
) -> None:
    load_pages(connection, [{"id": 0}])
    pages = [
        [{"id": 1, "a": 1}, {"id": 2, "a": 1}],
        [wide(1, True, 20), wide(3, True, 20)],
        [{"id": 3, "a": 2}],
        [wide(2, "text", 40)],
    ]
    load_pages(connection, *pages, disposition="replace")
    assert query("select id, a, c0, c39 from raw_shop.items order by id") == [
        (1, None, "true", None),
        (2, None, "text", "text"),
        (3, 2, None, None),
    ]
