"""Checks that a column's present values survive a new type that a pin gives to the column.

Postgres rounds and cuts them without an error, and reads dates by its own settings.
"""

import psycopg2
import psycopg2.errors
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from flows.errors import ConfigurationError
from flows.load.batch import shown
from flows.load.numerics import fits
from flows.load.pins import PinnedFields, Pins
from flows.load.table_schema import ColumnChange, converted

CHUNK_ROWS = 10_000
# Types whose values are compared as numbers; `real` is approximate by nature.
NUMBERS = ("bigint", "double precision", "numeric", "integer", "smallint")
APPROXIMATE = "real"
_REMEDY = "Correct the resource's `columns`, or reset the resource and load it again."

_TEXTS = sql.SQL("select {0}::text from {1} where {0} is not null")
_CHANGED = sql.SQL("select {0}::text from {1} where {2}::{3} is distinct from {0} limit 1")
_CONVERTED = sql.SQL("select {} from {} limit 0")


def check(cursor: Cursor, table: sql.Identifier, change: ColumnChange) -> None:
    """Refuse a new type that would change a value which the column has, or can't take them at all.

    Raises:
        ConfigurationError: remove the pin, or load the resource anew.
    """
    if change.old_type is None:
        return
    try:
        cursor.execute(_CONVERTED.format(_converted(change, change.old_type), table))
        changed = _changed(cursor, table, change, change.old_type)
    except psycopg2.errors.CannotCoerce as error:
        raise ConfigurationError(
            f"{'.'.join(table.strings)} has the column {change.column!r} of type "
            f"{change.old_type}, which Postgres can't convert to the pinned type "
            f"{change.new_type}. {_REMEDY}"
        ) from error
    if changed is not None:
        raise ConfigurationError(
            f"{'.'.join(table.strings)} has {shown(changed)} in the column {change.column!r}, "
            f"which the pinned type {change.new_type} would change. {_REMEDY}"
        )


def _changed(
    cursor: Cursor, table: sql.Identifier, change: ColumnChange, old_type: str
) -> str | None:
    """A value that the new type would change."""
    if change.new_type == APPROXIMATE:
        return None
    if old_type.startswith(NUMBERS):
        return _changed_number(cursor, table, change, old_type)
    return _changed_text(cursor, table, change)


def _converted(change: ColumnChange, old_type: str) -> sql.Composable:
    return converted(change.column, old_type, change.new_type)


def _changed_number(
    cursor: Cursor, table: sql.Identifier, change: ColumnChange, old_type: str
) -> str | None:
    """A number that is another one after it was converted there and back."""
    # Postgres converts `money` to no other number.
    back = f"numeric::{old_type}" if change.new_type == "money" else old_type
    there = _converted(change, old_type)
    column = sql.Identifier(change.column)
    cursor.execute(_CHANGED.format(column, table, there, sql.SQL(back)))
    row = cursor.fetchone()
    return str(row[0]) if row else None


def _changed_text(cursor: Cursor, table: sql.Identifier, change: ColumnChange) -> str | None:
    """A value that the new type would not take as a text."""
    pinned = Pins({change.column: change.new_type}, lambda names: {name: name for name in names})
    found = pinned.of([change.column])
    if not found:
        return None
    with cursor.connection.cursor("present_values") as values:
        values.execute(_TEXTS.format(sql.Identifier(change.column), table))
        while chunk := [text for (text,) in values.fetchmany(CHUNK_ROWS)]:
            changed = _first_changed(chunk, change.column, found)
            if changed is not None:
                return changed
    return None


def _first_changed(texts: list[str], column: str, pinned: PinnedFields) -> str | None:
    form, scale = pinned.forms.get(column), pinned.scales.get(column)
    if form and not form.takes_all(texts):
        return next(text for text in texts if not form.takes_all([text]))
    if scale is not None:
        return next((text for text in texts if not fits(text, scale)), None)
    return None
