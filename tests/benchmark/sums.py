"""What a table holds, in numbers that are the same whichever types its columns have."""

from contextlib import closing
from typing import Any

import psycopg2
from psycopg2 import sql

from tests.benchmark import flights

NUMBER = "array[count({0}), sum({0}::numeric)]"
TEXT = "array[count({0}), sum(hashtext({0})::numeric)]"
TIME = "array[count({0}), sum(extract(epoch from {0}::timestamptz)::numeric)]"

Sums = dict[str, Any]


class DifferentRowsError(Exception):
    """A tool's table does not hold what was served; the message names the columns."""


def sums_of(database: str, table: tuple[str, str]) -> Sums:
    """The number of rows, and by column how many values there are and what they add up to."""
    names = [*flights.INTEGERS, *flights.TEXTS]
    select = sql.SQL("select count(*), {} from {}").format(
        sql.SQL(", ").join(_sum_of(name) for name in names), sql.Identifier(*table)
    )
    return dict(zip(["rows", *names], _row(database, select), strict=True))


def check_generated(database: str, table: tuple[str, str], rows: int) -> None:
    """Raise DifferentRowsError unless the table holds that many generated rows, each once.

    Their `rowid` goes up by one from the number of rows on a page; the key is unique in Postgres.
    """
    select = sql.SQL("select count(*), sum(rowid) from {}").format(sql.Identifier(*table))
    found = dict(zip(["rows", "rowid"], _row(database, select), strict=True))
    total = sum(range(flights.ROWS_A_PAGE, flights.ROWS_A_PAGE + rows))
    compare(found, {"rows": rows, "rowid": total}, f"The load of {rows:,} generated rows")


def compare(found: Sums, expected: Sums, what: str) -> None:
    """Raise DifferentRowsError unless both are the same."""
    wrong = [name for name in expected if found[name] != expected[name]]
    if wrong:
        first = wrong[0]
        raise DifferentRowsError(
            f"{what} left other rows than were served. Different: {', '.join(wrong)}; {first} is "
            f"{_shown(found[first])} instead of {_shown(expected[first])}."
        )


def _shown(value: Any) -> str:
    return " values, sum ".join(map(str, value)) if isinstance(value, list) else str(value)


def _row(database: str, select: sql.Composed) -> tuple[Any, ...]:
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute(select)
        (row,) = cursor.fetchall()
        return row


def _sum_of(name: str) -> sql.Composed:
    form = NUMBER if name in flights.INTEGERS else TIME if name == "time_hour" else TEXT
    return sql.SQL(form).format(sql.Identifier(name))
