"""Promises about memory: it stays bounded whatever the records, here and in Postgres."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from tests.load.memory_api import load_pages

MIB = 1 << 20
COLUMNS = 1500
REPOSITORY = Path(__file__).parents[2]
# The process before the load, the rows that wait for Postgres, and the prefetched ones.
BASE_MIB, WAITING_MIB = 70, 128


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


def measured(database: URL, shape: str, size_mib: float) -> dict[str, Any]:
    """The numbers of a load of one page in a process of its own."""
    program = REPOSITORY / "tests" / "load" / "measured_load.py"
    done = subprocess.run(
        [sys.executable, program, libpq(database), shape, str(size_mib)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param("tiny", marks=pytest.mark.long),
        pytest.param("tiny, appended", marks=pytest.mark.long),
        pytest.param("tiny, replaced", marks=pytest.mark.long),
        pytest.param("tiny lines", marks=pytest.mark.long),
        "1,500 columns",
    ],
)
def test_a_page_takes_a_few_times_its_bytes_whatever_its_records(
    database: URL, connection: Connection, shape: str
) -> None:
    found = measured(database, shape, 32)
    assert found["rejected"] == 0
    assert found["extracted"] > 1000
    assert found["peak_mib"] < BASE_MIB + WAITING_MIB + 4 * 32
    assert peak_bytes(connection) < 100 * MIB


@pytest.mark.parametrize(
    ("shape", "size_mib", "rejected"),
    [
        ("nested", 6, False),
        pytest.param("half a pair each", 6, True, marks=pytest.mark.long),
        pytest.param("no objects", 2, True, marks=pytest.mark.long),
    ],
)
def test_records_that_are_read_one_by_one_take_no_more(
    database: URL, shape: str, size_mib: float, rejected: bool
) -> None:
    found = measured(database, shape, size_mib)
    assert found["rejected"] == (found["extracted"] if rejected else 0)
    assert found["extracted"] > 100_000
    assert found["peak_mib"] < BASE_MIB + WAITING_MIB + 4 * size_mib


def test_a_record_that_is_too_large_is_set_aside(database: URL) -> None:
    found = measured(database, "one record", 60)
    assert (found["extracted"], found["rejected"]) == (1, 1)
    assert found["peak_mib"] < BASE_MIB + 5 * 60
