"""The part of a load's result in Postgres that must not depend on how often it was killed."""

import io
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.deletes import DELETED_AT
from flows.load import ledger
from flows.load.column_names import OWN_COLUMNS
from flows.load.ledger import Entry
from flows.load.table_schema import column_types
from tests.chaos.scenarios import Scenario

TABLE = sql.Identifier("raw_shop", "items")
_CURSOR = (
    "select cursor_at, cursor_seen_at, cursor_number, cursor_seen_number, cursor_token, resume"
    " from elt.checkpoints"
)
_CHANGES = (
    "select table_name, column_name, old_type, new_type"
    " from elt.schema_changes order by schema_change_id"
)
_UNTOLD = "select kind, description from elt.anomalies where told_at is null order by anomaly_id"


@dataclass(frozen=True)
class Outcome:
    """The raw table, its history and the cursor.

    Attributes:
        rows: COPY text of all columns except the load's own, ordered by all of them; of the time of
            a deletion, whether there is one.
        untold: the anomalies that the next run tells.
    """

    columns: list[tuple[str, str]]
    rows: list[bytes]
    changes: list[tuple[str, ...]]
    untold: list[tuple[str, ...]]
    checkpoint: list[tuple[datetime | None, ...]]


def outcome(database: URL) -> Outcome:
    """The present result."""
    with closing(psycopg2.connect(libpq(database))) as connection, connection.cursor() as cursor:
        types = column_types(cursor, TABLE)
        columns = [(name, kind) for name, kind in types.items() if name not in OWN_COLUMNS]
        cursor.execute(_CHANGES)
        changes = cursor.fetchall()
        cursor.execute(_UNTOLD)
        untold = cursor.fetchall()
        cursor.execute(_CURSOR)
        checkpoint = cursor.fetchall()
        found = _rows(cursor, [name for name, _ in columns])
        return Outcome(columns, found, changes, untold, checkpoint)


def _rows(cursor: Cursor, columns: Sequence[str]) -> list[bytes]:
    if not columns:
        return []
    names = sql.SQL(", ").join(map(_lasting, columns))
    query = sql.SQL("copy (select {names} from {table} order by {names}) to stdout")
    out = io.BytesIO()
    cursor.copy_expert(query.format(names=names, table=TABLE), out)
    return out.getvalue().splitlines()


def _lasting(column: str) -> sql.Composable:
    template = "{} is not null" if column == DELETED_AT else "{}"
    return sql.SQL(template).format(sql.Identifier(column))


def entries(database: URL, after: int = 0) -> list[Entry]:
    """The ledger from a load on."""
    with closing(psycopg2.connect(libpq(database))) as connection, connection.cursor() as cursor:
        return ledger.entries(cursor, after)


def assert_adds_up(found: Sequence[Entry], whole: Entry, scenario: Scenario) -> None:
    """Every record of every run is counted, and the runs together make one complete load.

    A replace starts again each time, and uncommitted work is not in the ledger.
    """
    for entry in found:
        fates = entry.inserted + entry.updated + entry.unchanged + entry.rejected
        assert entry.extracted == fates, entry
    if scenario.writes == "replace":
        assert {_numbers(entry) for entry in found[:-1]} <= {(0,) * 6}
        assert _numbers(found[-1]) == _numbers(whole)
    else:
        sums = tuple(map(sum, zip(*map(_numbers, found), strict=True)))
        assert sums == _numbers(whole), found


def _numbers(entry: Entry) -> tuple[int, ...]:
    return (
        entry.pages,
        entry.extracted,
        entry.inserted,
        entry.updated,
        entry.unchanged,
        entry.deleted,
    )
