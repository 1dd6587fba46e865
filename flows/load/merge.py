"""Rows into a raw table: straight by COPY, or by COPY into a temporary table and one statement.

The stage lives as long as the session's load. Rows that a merge finds identical are not rewritten.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg2.errors
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from flows.declaration import Disposition
from flows.load.frames import Frame
from flows.load.names import column_names
from flows.load.schema import Change, column_types, converted, create_table, evolve

STAGE = sql.Identifier("pg_temp", "stage")
COPY_BYTES = 1 << 18
OWN_COLUMNS = frozenset({"_loaded_at", "_load_id", "_ordinal"})

_MERGE = sql.SQL(
    "with latest as ("
    " select distinct on ({key}) * from {stage} order by {key}, _ordinal desc"
    "), merged as ("
    " insert into {table} as present ({columns}) select {values} from latest"
    " on conflict ({key}) {on_conflict}"
    " returning (xmax = 0) as is_new"
    ") select count(*) filter (where is_new), count(*) filter (where not is_new) from merged"
)
_UPDATE = sql.SQL(
    "do update set {assignments}, _loaded_at = excluded._loaded_at, _load_id = excluded._load_id"
    " where ({present}) is distinct from ({excluded})"
)
_APPEND = sql.SQL("insert into {table} ({columns}) select {values} from {stage} order by _ordinal")
_ADD_NULLS = "insert into pg_temp.stage select from generate_series(1, %s)"
_DELETE_MISSING = sql.SQL(
    "delete from {table} as present where {scope}"
    " and not exists (select from {stage} as staged where {same_key})"
)
_DELETE = sql.SQL("delete from {table} as present where {scope}")


@dataclass(frozen=True)
class Published:
    """Rows that a publish inserted, changed and removed; the others were there already."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0


@dataclass(frozen=True)
class Target:
    """A raw table as a load sees it; all names are column names.

    Attributes:
        scope: the columns and values that mark the rows of this load's partition.
    """

    table: sql.Identifier
    key: tuple[str, ...]
    pins: Mapping[str, str]
    scope: Mapping[str, object]


class Stage:
    """The temporary table between COPY and the raw table; it lives in the session."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._pins = target.pins
        self._names: dict[str, str] = {}
        self._beyond_double: set[str] = set()

    def create(self, cursor: Cursor) -> bool:
        """Make the stage, empty and without columns; say whether the raw table is still to come."""
        self._pins = _as_postgres_says(cursor, self._target.pins)
        cursor.execute("drop table if exists pg_temp.stage")
        cursor.execute(
            "create temporary table stage (_ordinal bigint generated always as identity)"
        )
        return not column_types(cursor, self._target.table)

    def add(self, cursor: Cursor, frame: Frame) -> None:
        """COPY rows into the stage, which takes on the columns it lacks.

        Raises:
            ConfigurationError: when two fields meet in one column name.
        """
        wanted = self._wanted(frame)
        self._evolve(cursor, STAGE, wanted)
        if wanted:
            self._copy(cursor, STAGE, frame, column_types(cursor, STAGE))
        else:
            cursor.execute(_ADD_NULLS, [frame.count])

    def add_directly(
        self, cursor: Cursor, frames: Sequence[Frame], load_id: int
    ) -> list[Change] | None:
        """COPY rows straight into the raw table.

        Returns None, and leaves the table as it was, when it has a row with the key of one of
        them: such rows have to be merged by way of the stage.
        """
        cursor.execute("savepoint before_copy")
        cursor.execute("select set_config('elt.load_id', %s, true)", [str(load_id)])
        try:
            return self._copy_all(cursor, frames)
        except psycopg2.errors.UniqueViolation:
            cursor.execute("rollback to savepoint before_copy")
            return None

    def _copy_all(self, cursor: Cursor, frames: Sequence[Frame]) -> list[Change]:
        changes: list[Change] = []
        types: dict[str, str] = {}
        shapes: set[object] = set()
        for frame in frames:
            wanted = self._wanted(frame)
            shape = (frozenset(wanted.items()), len(self._names))
            if shape not in shapes:
                changes += self._shape(cursor, wanted)
                types = column_types(cursor, self._target.table)
                shapes.add(shape)
            self._copy(cursor, self._target.table, frame, types)
        return changes

    def _wanted(self, frame: Frame) -> dict[str, str]:
        """The frame's columns that hold any value, with their types; its other fields are noted."""
        self._names = column_names(dict.fromkeys([*self._names, *frame.natural]))
        self._beyond_double |= {self._names[field] for field in frame.beyond_double}
        kinds = {self._names[field]: kind for field, kind in frame.natural.items()}
        return {
            name: self._pins.get(name, kind) for name, kind in kinds.items() if kind is not None
        }

    def _copy(
        self, cursor: Cursor, table: sql.Identifier, frame: Frame, types: Mapping[str, str]
    ) -> None:
        """COPY the columns that hold a value; of the frame's fields the first one in any case."""
        fields = [field for field, kind in frame.natural.items() if kind is not None]
        fields = fields or list(frame.natural)[:1]
        columns = sql.SQL(", ").join(sql.Identifier(self._names[field]) for field in fields)
        form, rows = frame.copy_source({field: types[self._names[field]] for field in fields})
        command = sql.SQL("copy {} ({}) from stdin (format {})")
        cursor.copy_expert(
            command.format(table, columns, sql.SQL(form)), io.BytesIO(rows), size=COPY_BYTES
        )

    def _evolve(
        self, cursor: Cursor, table: sql.Identifier, wanted: Mapping[str, str | None]
    ) -> list[Change]:
        pinned = frozenset(self._pins)
        return evolve(cursor, table, wanted, pinned, frozenset(self._beyond_double))

    def publish(
        self, cursor: Cursor, disposition: Disposition, load_id: int
    ) -> tuple[Published, list[Change]]:
        """Bring the staged rows into the raw table and empty the stage."""
        staged = column_types(cursor, STAGE)
        changes = self._shape(cursor, staged)
        published = Published()
        if column_types(cursor, self._target.table):
            write = {"merge": self._merge, "append": self._append, "replace": self._replace}
            published = write[disposition](cursor, staged, load_id)
        cursor.execute("truncate pg_temp.stage")
        return published, changes

    def _shape(self, cursor: Cursor, staged: Mapping[str, str]) -> list[Change]:
        """Create or widen the raw table, one session at a time."""
        table = self._target.table
        cursor.execute(
            "select pg_advisory_xact_lock(hashtextextended(%s, 0))", [table.as_string(cursor)]
        )
        if not self._names:
            return []
        pins = self._pins
        seen = self._names.values()
        present = column_types(cursor, table)
        if present:
            wanted = {
                name: staged.get(name) or (None if name in present else pins.get(name))
                for name in seen
            }
            return self._evolve(cursor, table, wanted)
        types = {name: staged.get(name) or pins.get(name, "text") for name in seen}
        create_table(cursor, table, types, list(self._target.key))
        return []

    def _merge(self, cursor: Cursor, staged: Mapping[str, str], load_id: int) -> Published:
        """Insert and update; as every record has its key, no column of it means no record."""
        if not staged.keys() >= set(self._target.key):
            return Published()
        query = _MERGE.format(**self._parts(cursor, staged), on_conflict=self._on_conflict(cursor))
        cursor.execute(query, {"load_id": load_id})
        inserted, updated = cursor.fetchall()[0]
        return Published(inserted, updated)

    def _append(self, cursor: Cursor, staged: Mapping[str, str], load_id: int) -> Published:
        cursor.execute(_APPEND.format(**self._parts(cursor, staged)), {"load_id": load_id})
        return Published(cursor.rowcount)

    def _replace(self, cursor: Cursor, staged: Mapping[str, str], load_id: int) -> Published:
        """Merge and remove what was not sent; without a key, remove all and insert all."""
        scope = [
            sql.SQL("present.{} = {}").format(sql.Identifier(name), sql.Literal(value))
            for name, value in self._target.scope.items()
        ]
        types = column_types(cursor, self._target.table)
        same_key = [
            sql.SQL("present.{} = {}").format(
                sql.Identifier(name), converted(name, staged[name], types[name])
            )
            for name in self._target.key
            if name in staged
        ]
        names = {
            "table": self._target.table,
            "stage": STAGE,
            "scope": sql.SQL(" and ").join(scope) if scope else sql.SQL("true"),
            "same_key": sql.SQL(" and ").join(same_key),
        }
        cursor.execute((_DELETE_MISSING if same_key else _DELETE).format(**names))
        deleted = cursor.rowcount
        write = self._merge if same_key else self._append
        published = write(cursor, staged, load_id)
        return Published(published.inserted, published.updated, deleted)

    def _parts(self, cursor: Cursor, staged: Mapping[str, str]) -> dict[str, sql.Composable]:
        types = column_types(cursor, self._target.table)
        columns = [name for name in staged if name not in OWN_COLUMNS]
        values = [converted(name, staged[name], types[name]) for name in columns]
        return {
            "table": self._target.table,
            "stage": STAGE,
            "key": sql.SQL(", ").join(map(sql.Identifier, self._target.key)),
            "columns": sql.SQL(", ").join(
                map(sql.Identifier, [*columns, "_loaded_at", "_load_id"])
            ),
            "values": sql.SQL(", ").join([*values, sql.SQL("now()"), sql.SQL("%(load_id)s")]),
        }

    def _on_conflict(self, cursor: Cursor) -> sql.Composable:
        """Compare and set all columns: a field that a record lacks is null, whoever else has it."""
        types = column_types(cursor, self._target.table)
        rest = [name for name in types if name not in {*self._target.key, *OWN_COLUMNS}]
        if not rest:
            return sql.SQL("do nothing")
        columns = [sql.Identifier(name) for name in rest]
        comma = sql.SQL(", ")
        return _UPDATE.format(
            assignments=comma.join(sql.SQL("{0} = excluded.{0}").format(name) for name in columns),
            present=comma.join(sql.SQL("present.{}").format(name) for name in columns),
            excluded=comma.join(sql.SQL("excluded.{}").format(name) for name in columns),
        )


def _as_postgres_says(cursor: Cursor, pins: Mapping[str, str]) -> dict[str, str]:
    """The pinned types by Postgres' own names: `timestamptz` is `timestamp with time zone`."""
    if not pins:
        return {}
    definitions = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in pins.items()
    )
    cursor.execute(sql.SQL("create temporary table pins ({})").format(definitions))
    types = column_types(cursor, sql.Identifier("pg_temp", "pins"))
    cursor.execute("drop table pg_temp.pins")
    return types
