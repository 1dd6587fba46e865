"""The mapping of fields to columns of a raw table, stored in `elt.columns` so it never changes.

A column without a field, as in tables of older versions, goes to the first field that fits it.
"""

from collections.abc import Iterable, Mapping, Sequence

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

from flows.errors import BadPayloadError, ConfigurationError
from flows.load import primary_key
from flows.load.column_names import column_names
from flows.redaction import shows_secret

_READ = (
    "select field, column_name from elt.columns"
    " where (table_schema, table_name) = (%s, %s) order by named_at, column_name"
)
_WRITE = (
    "insert into elt.columns (table_schema, table_name, field, column_name) values %s"
    " on conflict (table_schema, table_name, column_name)"
    " do update set named_at = clock_timestamp()"
)


class ColumnRegistry:
    """The columns of one raw table's fields, as known to this load."""

    def __init__(
        self, table: sql.Identifier, declared: Mapping[str, str], first: Sequence[str]
    ) -> None:
        """`declared` are the resource's `names`; the fields in `first` choose before all others."""
        self._table = table
        self._declared = declared
        self._first = first
        self._stored: dict[str, str] = {}
        self._owners: dict[str, str] = {}
        self._names: dict[str, str] = {}

    def __getitem__(self, field: str) -> str:
        """The column of a field that has one."""
        return self._names[field]

    def has_field(self, column: str) -> bool:
        """Whether a load has stored a field's values in the column."""
        return column in self._stored.values()

    def expected(self, fields: Iterable[str]) -> dict[str, str]:
        """The present or future column of each field; may be called from any thread."""
        known, owners = self._names, self._owners
        met = list(fields)
        new = column_names([field for field in met if field not in known], {}, owners)
        return {field: known[field] if field in known else new[field] for field in met}

    def read(self, cursor: Cursor) -> None:
        """Read the columns that earlier and concurrent loads have named.

        Raises:
            ConfigurationError: when a declared column belongs to another field.
        """
        cursor.execute(_READ, self._table.strings)
        rows = cursor.fetchall()
        self._stored = dict(rows)
        owners = {column: field for field, column in rows}
        for field, column in self._declared.items():
            owner = owners.setdefault(column, field)
            if owner != field:
                raise ConfigurationError(
                    f"{'.'.join(self._table.strings)}: `names` gives the column {column!r} to the "
                    f"field {field!r}, but it holds the values of {owner!r}. Choose another name."
                )
        self._owners = owners
        self._names = {**self._stored, **self._declared}
        self._assign(self._first)

    def name(self, cursor: Cursor, groups: Iterable[Iterable[str]]) -> None:
        """Assign a column to each field without one, group by group.

        Loads of other partitions wait until this transaction has ended, and see the same columns.

        Raises:
            BadPayloadError: when the name of a new field contains a secret, which would be stored.
        """
        fields = [list(group) for group in groups]
        met = {field for group in fields for field in group}
        if all(self._is_stored(field) for field in met):
            return
        self._refuse_secrets(met)
        primary_key.lock(cursor, self._table)
        self.read(cursor)
        for group in fields:
            self._assign(group)
        rows = [
            (*self._table.strings, field, self._names[field])
            for field in sorted(met)
            if not self._is_stored(field)
        ]
        execute_values(cursor, _WRITE, rows)
        self._stored |= {field: self._names[field] for field in met}

    def _refuse_secrets(self, fields: Iterable[str]) -> None:
        for field in fields:
            if not self._is_stored(field) and shows_secret(field):
                raise BadPayloadError(
                    f"{'.'.join(self._table.strings)}: the API repeats a secret of the login in "
                    f"the name of a field, {field!r}, which would be stored. Ask the API's owner, "
                    "or remove the field in the source."
                )

    def _is_stored(self, field: str) -> bool:
        column = self._names.get(field)
        return column is not None and self._stored.get(field) == column

    def _assign(self, fields: Iterable[str]) -> None:
        new = [field for field in fields if field not in self._names]
        names = column_names(new, {}, self._owners)
        self._owners = self._owners | {column: field for field, column in names.items()}
        self._names = self._names | names
