"""Writes rows to a raw table: directly by COPY, or by COPY into a temporary staging table.

Both tables get the columns that the rows need (schema evolution). The staging table exists for
one load.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from operator import itemgetter

import psycopg2
import psycopg2.errors
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from flows.deletes import DELETED_AT, Tombstones
from flows.errors import BadPayloadError, ConfigurationError
from flows.load import deletions, ownership, present_values, primary_key, shrinkage
from flows.load.batch import Batch, UnstorableError, shown
from flows.load.column_names import OWN_COLUMNS
from flows.load.column_registry import ColumnRegistry
from flows.load.merge import (
    STAGE,
    Ids,
    Target,
    WriteCounts,
    append,
    create_stage,
    delete_all,
    listed,
    merge,
    recreate_stage,
    replace_all,
    try_newest,
)
from flows.load.pins import NO_PINS, Pins
from flows.load.shrinkage import Replacement
from flows.load.table_schema import (
    LOAD_ID_SETTING,
    NATURAL,
    ColumnChange,
    apply,
    changes_for,
    column_types,
    create_table,
    used_columns,
)
from flows.postgres import locks
from flows.redaction import redact
from flows.source import Disposition

TRIAL = sql.Identifier("pg_temp", "trial")
COPY_BYTES = 1 << 20
# https://www.postgresql.org/docs/current/limits.html
MAX_COLUMNS = 1600
# A row holds up to 8,160 bytes; a value that is stored out of line takes up to 24 of them.
WIDE_COLUMNS = 300
# For this many new columns or more, recreating a table takes less memory than altering it.
MANY_COLUMNS = 8
REFUSALS = (
    psycopg2.DataError,
    psycopg2.errors.ProgramLimitExceeded,
    psycopg2.errors.StatementTooComplex,
    psycopg2.errors.TooManyColumns,
)

REFUSAL_CHARACTERS = 300
# "COPY stage, line 1, column v: …", in any language of Postgres' messages.
_COPY_PLACE = re.compile(r"COPY [^,]*, \S+ \d+, \S+ (?P<column>.+?)(?::|$)", re.MULTILINE)

_COPY = sql.SQL("copy {} ({}) from stdin (format {})")
_ADD_NULLS = sql.SQL("insert into {} select from generate_series(1, %s)")


class StagingTable:
    """The temporary table between COPY and the raw table; it belongs to the session."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._columns = ColumnRegistry(target.table, target.names, [*target.key, *target.scope])
        self._pins = target.pins
        self._names: dict[str, str] = {}
        self._beyond_double: frozenset[str] = frozenset()
        self._present: dict[str, str] = {}
        self._room = 0
        self._filled: frozenset[str] = frozenset()
        self._other_key: list[str] = []
        self._expects_updates = False

    def create(self, cursor: Cursor) -> bool:
        """Create the staging table, empty and without columns.

        Returns True if the raw table or its key does not exist yet.

        Raises:
            ConfigurationError: when there is a table that no load made, or one whose column
                `_deleted_at` holds a field of the API.
        """
        ownership.check(cursor, self._target.table)
        self._columns.read(cursor)
        self._target = _by_columns(self._target, self._columns)
        self._present = column_types(cursor, self._target.table)
        self._check_marks()
        self._room = MAX_COLUMNS - used_columns(cursor, self._target.table)
        self._pins = _pinned_by_hand(self._present) | _as_postgres_says(cursor, self._target.pins)
        self._other_key = primary_key.other_key(cursor, self._target.table, self._target.key)
        create_stage(cursor)
        return not self._present or primary_key.is_deferred(cursor, self._target.table)

    def check_key(self) -> None:
        """Refuse to load into a table whose key differs from the declared one.

        Raises:
            ConfigurationError: declare the table's key, or load once with full_refresh.
        """
        if self._other_key:
            declared = ", ".join(self._target.key) or "none"
            raise ConfigurationError(
                f"{'.'.join(self._target.table.strings)} has the key "
                f"({', '.join(self._other_key)}), and the resource declares ({declared}). Load it "
                "once with full_refresh, which replaces the rows and the key, or declare the "
                "table's key."
            )

    def _check_marks(self) -> None:
        is_taken = DELETED_AT in self._present and not deletions.is_mark(self._present)
        if self._target.deletes is not None and (is_taken or self._columns.has_field(DELETED_AT)):
            raise ConfigurationError(
                f"{'.'.join(self._target.table.strings)} has a column {DELETED_AT} with values of "
                "the API, and `deletes` marks rows there. Give the field another column by "
                "`names`, and drop the old one."
            )

    def add(self, cursor: Cursor, batches: Sequence[Batch]) -> None:
        """COPY rows into the staging table and add the columns it lacks.

        Raises:
            UnstorableError: when Postgres or the contract refuses a row; no row is added then.
            BadPayloadError: when the table is frozen and they don't fit.
        """
        self._columns.name(cursor, [batch.natural for batch in batches])
        before = self._names, self._beyond_double
        cursor.execute("savepoint before_frames")
        try:
            self._add(cursor, batches)
        except (UnstorableError, *REFUSALS) as error:
            cursor.execute("rollback to savepoint before_frames")
            misfit = error if isinstance(error, UnstorableError) else self._refused(error)
            self._names, self._beyond_double = before
            raise misfit from error
        cursor.execute("release savepoint before_frames")

    @property
    def pins(self) -> Pins:
        """The table's columns, pinned or altered by hand, once the stage is created."""
        return Pins(self._pins, self._columns.expected) if self._pins else NO_PINS

    def _refused(self, error: psycopg2.Error) -> UnstorableError:
        """Postgres' error, with the field of the column that it names."""
        message = " ".join(redact(error.diag.message_primary or str(error)).split())
        if len(message) > REFUSAL_CHARACTERS:
            message = f"{message[: REFUSAL_CHARACTERS - 1]}…"
        place = _COPY_PLACE.match(error.diag.context or "")
        fields = {column: field for field, column in self._names.items()}
        field = fields.get(place["column"]) if place else None
        if field is None:
            return UnstorableError(f"was refused by Postgres: {message}")
        return UnstorableError(
            f"has a value in the field {shown(field)} that Postgres refused: {message}", field
        )

    def has_unique_keys(self, batches: Sequence[Batch], fields: Sequence[str]) -> bool:
        """Whether certainly no two rows have the same key; `fields` are those of the key."""
        is_pinned = not self._pins.keys().isdisjoint(self._target.key)
        return not is_pinned and primary_key.are_unique(batches, fields)

    def _add(self, cursor: Cursor, batches: Sequence[Batch]) -> None:
        self._make_room(cursor, batches, partial(self._evolve_stage, cursor))
        self._copy(cursor, STAGE, batches)
        if len(self._names) > WIDE_COLUMNS:
            self._try(cursor, sum(batch.count for batch in batches))

    def _try(self, cursor: Cursor, count: int) -> None:
        """Test whether the newest rows of the staging table would fit into the raw table.

        Rows may be larger there: it may have more columns, and wider types.
        """
        types = column_types(cursor, self._target.table)
        staged = column_types(cursor, STAGE)
        del staged["_ordinal"]
        if types:
            changes = self._changes(cursor, self._target.table, types, staged)
            types |= {change.column: change.new_type for change in changes}
        trial = {name: kind for name, kind in (types or staged).items() if name not in OWN_COLUMNS}
        create_table(cursor, TRIAL, trial, [])
        try_newest(cursor, TRIAL, count)
        cursor.execute("drop table pg_temp.trial")

    def add_directly(
        self, cursor: Cursor, batches: Sequence[Batch], load_id: int, defers_key: bool
    ) -> list[ColumnChange] | None:
        """COPY rows directly into the raw table; with `defers_key`, a new table gets no key yet.

        Returns None, and leaves the table unchanged, if it already has one of the keys or Postgres
        refuses a row: then the rows have to go through the staging table.
        """
        self._columns.name(cursor, [batch.natural for batch in batches])
        before = self._names, self._beyond_double
        cursor.execute("savepoint before_copy")
        cursor.execute("select set_config(%s, %s, true)", [LOAD_ID_SETTING, str(load_id)])
        try:
            shape = partial(self._shape, cursor, defers_key=defers_key)
            changes = self._make_room(cursor, batches, shape)
            self._copy(cursor, self._target.table, batches)
            return changes
        except (psycopg2.errors.UniqueViolation, UnstorableError, *REFUSALS):
            cursor.execute("rollback to savepoint before_copy")
            self._names, self._beyond_double = before
            return None

    def _make_room(
        self,
        cursor: Cursor,
        batches: Sequence[Batch],
        shape: Callable[[Mapping[str, str]], list[ColumnChange]],
    ) -> list[ColumnChange]:
        """Give a table the columns and types that the batches need, once per distinct need.

        Their rows are not in the table yet, so columns of earlier batches count as filled.
        """
        self._filled = frozenset()
        changes: list[ColumnChange] = []
        seen: set[object] = set()
        for batch in batches:
            wanted = self._columns_needed(batch)
            self._check_contract(cursor, batch)
            need = (frozenset(wanted.items()), len(self._names))
            if need not in seen:
                changes += shape(wanted)
                seen.add(need)
            self._filled |= wanted.keys()
        self._filled = frozenset()
        return changes

    def _columns_needed(self, batch: Batch) -> dict[str, str]:
        """The batch's columns with any value, and their types; registers all of its fields."""
        self._names = self._names | {field: self._columns[field] for field in batch.natural}
        new = {*self._names.values()} - self._present.keys()
        if len(new) > self._room:
            raise UnstorableError(
                f"would bring its table to {len(self._present) + len(new)} columns, and Postgres "
                f"allows {MAX_COLUMNS}, including dropped ones"
            )
        self._beyond_double |= {self._names[field] for field in batch.beyond_double}
        return {name: kind for name, kind in self._types(batch).items() if kind is not None}

    def _types(self, batch: Batch) -> dict[str, str | None]:
        """The types that the batch's columns need; None for columns that hold only nulls."""
        kinds = {self._names[field]: kind for field, kind in batch.natural.items()}
        return {name: kind and self._pins.get(name, kind) for name, kind in kinds.items()}

    def _check_contract(self, cursor: Cursor, batch: Batch) -> None:
        """Refuse a batch that needs a change of the table, if the contract does not allow it."""
        if self._target.contract == "evolve" or not self._present:
            return
        changes = self._changes(cursor, self._target.table, self._present, self._types(batch))
        if not changes:
            return
        differences = ", ".join(map(str, changes))
        if self._target.contract == "quarantine":
            raise UnstorableError(f"would need {differences}")
        raise BadPayloadError(
            f"{self._target.table.as_string(cursor)} is frozen, and the API's records would need "
            f"{differences}. Ask the API's owner; to accept it, alter the table, or load once with "
            "the contract `evolve`."
        )

    def _copy(self, cursor: Cursor, table: sql.Identifier, batches: Sequence[Batch]) -> None:
        """COPY the columns that hold any value."""
        types = column_types(cursor, table)
        for fields, alike in groupby(batches, _valued_fields):
            if not fields:
                cursor.execute(_ADD_NULLS.format(table), [sum(batch.count for batch in alike)])
                continue
            kinds = {field: types[self._names[field]] for field in fields}
            columns = listed("{}", [self._names[field] for field in fields])
            sources = (batch.copy_source(kinds) for batch in alike)
            for form, parts in groupby(sources, itemgetter(0)):
                command = _COPY.format(table, columns, sql.SQL(form))
                rows = io.BytesIO(b"".join(rows for _, rows in parts))
                cursor.copy_expert(command, rows, size=COPY_BYTES)

    def _evolve(
        self, cursor: Cursor, table: sql.Identifier, wanted: Mapping[str, str | None]
    ) -> list[ColumnChange]:
        changes = self._changes(cursor, table, column_types(cursor, table), wanted)
        change = partial(apply, cursor, table, changes)
        if table == STAGE:
            change()
        elif changes:
            for each in changes:
                if each.column in self._pins:
                    present_values.check(cursor, table, each)
            locks.with_retries(cursor, [table], change)
        return changes

    def _evolve_stage(self, cursor: Cursor, wanted: Mapping[str, str | None]) -> list[ColumnChange]:
        """Add and widen columns; if many are new, recreate the staging table.

        For each column added to a table, Postgres keeps one more description of all its columns
        until the transaction ends: 250 MB for 1,500 columns.
        """
        present = column_types(cursor, STAGE)
        changes = self._changes(cursor, STAGE, present, wanted)
        added = [change for change in changes if change.old_type is None]
        if len(added) < MANY_COLUMNS:
            apply(cursor, STAGE, changes)
            return changes
        apply(cursor, STAGE, [change for change in changes if change.old_type is not None])
        recreate_stage(cursor, {change.column: change.new_type for change in added})
        return changes

    def _changes(
        self,
        cursor: Cursor,
        table: sql.Identifier,
        present: Mapping[str, str],
        wanted: Mapping[str, str | None],
    ) -> list[ColumnChange]:
        pinned = frozenset(self._pins)
        beyond = self._beyond_double
        return changes_for(cursor, table, present, wanted, pinned, beyond, self._filled)

    def create_key(self, cursor: Cursor) -> None:
        """Create the raw table's key if it was deferred."""
        primary_key.create_deferred(cursor, self._target.table, self._target.key)

    def replacement(self, cursor: Cursor) -> Replacement:
        """The number of rows that a `replace` would remove, and of those that it would write."""
        return shrinkage.replacement(cursor, self._staged_target(cursor))

    def flush(
        self,
        cursor: Cursor,
        disposition: Disposition,
        load_id: int,
        replays: int | None = None,
        may_repeat_keys: bool = True,
    ) -> tuple[WriteCounts, list[ColumnChange]]:
        """Write the staged rows to the raw table and empty the staging table.

        If rows may repeat a key, the last one counts. Rows that a load after `replays` wrote are
        newer than the replayed ones, so they stay. A replay's rows are as old as the load that it
        replayed.
        """
        changes = self._shape(cursor, column_types(cursor, STAGE))
        self.create_key(cursor)
        written = WriteCounts()
        if column_types(cursor, self._target.table):
            self._target = self._staged_target(cursor)
            ids = {"load_id": load_id, "replays": replays}
            written = self._write(cursor, disposition, ids, may_repeat_keys)
        cursor.execute("truncate pg_temp.stage")
        return written, changes

    def _staged_target(self, cursor: Cursor) -> Target:
        """The target, with the condition that a row that is staged now is a tombstone."""
        declared = self._target.deletes
        if not isinstance(declared, Tombstones):
            return self._target
        condition = deletions.tombstone(declared, self._names, column_types(cursor, STAGE))
        return replace(self._target, tombstone=condition)

    def _write(
        self, cursor: Cursor, disposition: Disposition, ids: Ids, may_repeat_keys: bool
    ) -> WriteCounts:
        if disposition == "append":
            return append(cursor, self._target, ids)
        if disposition == "merge":
            expects = self._expects_updates
            written = merge(cursor, self._target, ids, may_repeat_keys, expects)
            self._expects_updates = written.all_updated
            return written
        deleted = self._change_key(cursor) if self._other_key else 0
        written = replace_all(cursor, self._target, ids, may_repeat_keys)
        return replace(written, deleted=written.deleted + deleted)

    def _change_key(self, cursor: Cursor) -> int:
        """Empty the partition and give the table the declared key."""
        delete = delete_all(cursor, self._target)
        deleted = primary_key.change(cursor, self._target.table, self._target.key, delete)
        self._other_key = []
        return deleted

    def _shape(
        self, cursor: Cursor, staged: Mapping[str, str], defers_key: bool = False
    ) -> list[ColumnChange]:
        """Create or widen the raw table, one session at a time."""
        table = self._target.table
        primary_key.lock(cursor, table)
        if not self._present:
            ownership.check(cursor, table)
        pins = self._pins
        seen = self._names.values()
        present = column_types(cursor, table)
        marks = {DELETED_AT: deletions.MARK_TYPE} if self._target.deletes is not None else {}
        if present:
            wanted = {
                name: staged.get(name) or (None if name in present else pins.get(name))
                for name in seen
            }
            return self._evolve(cursor, table, wanted | marks)
        if not self._names:
            return []
        types = {name: staged.get(name) or pins.get(name, "text") for name in seen} | marks
        create_table(cursor, table, types, list(self._target.key))
        if defers_key:
            primary_key.defer(cursor, table)
        return []


def _by_columns(target: Target, columns: ColumnRegistry) -> Target:
    """The target with fields replaced by their columns."""
    scope = {columns[field]: value for field, value in target.scope.items()}
    return replace(target, key=tuple(columns[field] for field in target.key), scope=scope)


def _valued_fields(batch: Batch) -> tuple[str, ...]:
    return tuple(field for field, kind in batch.natural.items() if kind is not None)


def _pinned_by_hand(present: Mapping[str, str]) -> dict[str, str]:
    """The table's columns whose types no load chose: altered by hand, or formerly pinned."""
    return {
        name: kind
        for name, kind in present.items()
        if kind not in NATURAL and name not in {*OWN_COLUMNS, DELETED_AT}
    }


def _as_postgres_says(cursor: Cursor, pins: Mapping[str, str]) -> dict[str, str]:
    """The pinned types in Postgres' own names: `timestamptz` is `timestamp with time zone`."""
    if not pins:
        return {}
    definitions = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in pins.items()
    )
    cursor.execute(sql.SQL("create temporary table pins ({})").format(definitions))
    types = column_types(cursor, sql.Identifier("pg_temp", "pins"))
    cursor.execute("drop table pg_temp.pins")
    return types
