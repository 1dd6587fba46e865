"""Rows into a raw table: straight by COPY, or by COPY into a temporary table and one statement.

The stage lives as long as the session's load. Rows that a merge finds identical are not rewritten.
"""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter

import psycopg2
import psycopg2.errors
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from flows.declaration import Contract, Disposition
from flows.errors import BadPayloadError
from flows.load import keys
from flows.load.frames import Frame, MisfitError, text_in
from flows.load.names import OWN_COLUMNS, column_names
from flows.load.schema import (
    NATURAL,
    Change,
    apply,
    changes_for,
    column_types,
    converted,
    create_table,
    used_columns,
)

Ids = Mapping[str, int | None]

STAGE = sql.Identifier("pg_temp", "stage")
TRIAL = sql.Identifier("pg_temp", "trial")
COPY_BYTES = 1 << 20
# https://www.postgresql.org/docs/current/limits.html
MAX_COLUMNS = 1600
# A row has 8,160 bytes of room, and a value that is stored elsewhere takes up to 24 of them.
WIDE_COLUMNS = 300
REFUSALS = (
    psycopg2.DataError,
    psycopg2.errors.ProgramLimitExceeded,
    psycopg2.errors.StatementTooComplex,
    psycopg2.errors.TooManyColumns,
)

_DROP_EARLIER = sql.SQL(
    "delete from {stage} as staged using ("
    " select {key}, max(_ordinal) as _ordinal from {stage} group by {key} having count(*) > 1"
    ") as latest where ({staged_key}) = ({latest_key}) and staged._ordinal < latest._ordinal"
)
# Rows are looked up by the key's index: hashing the whole table costs more, the larger it is.
_LOOK_UP = (
    "select set_config('enable_hashjoin', %(joins)s, true),"
    " set_config('enable_mergejoin', %(joins)s, true)"
)
# No row is at (0,0), and unlike a null it takes no room that a row of the table has not.
_COMPARE = sql.SQL(
    "create temporary table differing on commit drop as"
    " select coalesce(present.ctid, '(0,0)') as _present_at, latest.*"
    " from (select {values} from {stage}) as latest left join {table} as present on {same_key}"
    " where present.ctid is null or row({present}) is distinct from row({latest})"
    " and (%(replays)s::bigint is null or %(replays)s >= coalesce("
    "  (select coalesce(replays, load_id) from elt.loads where load_id = present._load_id),"
    "  present._load_id"
    " ))"
)
_UPDATE = sql.SQL(
    "update {table} as present set {assignments} from pg_temp.differing as latest"
    " where present.ctid = latest._present_at and latest._present_at <> '(0,0)'"
)
_INSERT = sql.SQL(
    "insert into {table} ({columns}) select {new} from pg_temp.differing"
    " where _present_at = '(0,0)' on conflict ({key}) do nothing"
)
_APPEND = sql.SQL("insert into {table} ({columns}) select {values} from {stage} order by _ordinal")
_TRY = sql.SQL(
    "insert into {table} ({columns}) select {values} from ("
    " select * from {stage} order by _ordinal desc limit %(count)s"
    ") as newest"
)
_COPY = sql.SQL("copy {} ({}) from stdin (format {})")
_ADD_NULLS = sql.SQL("insert into {} select from generate_series(1, %s)")
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
        contract: what becomes of records that the table would have to change for.
    """

    table: sql.Identifier
    key: tuple[str, ...]
    pins: Mapping[str, str]
    scope: Mapping[str, object]
    contract: Contract = "evolve"


class Stage:
    """The temporary table between COPY and the raw table; it lives in the session."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._pins = target.pins
        self._names: dict[str, str] = {}
        self._beyond_double: frozenset[str] = frozenset()
        self._present: dict[str, str] = {}
        self._room = 0
        self._may_repeat_keys = True
        self._filled: frozenset[str] = frozenset()

    def create(self, cursor: Cursor) -> bool:
        """Make the stage, empty and without columns.

        Returns whether the raw table, or its key, is still to come.
        """
        self._present = column_types(cursor, self._target.table)
        self._room = MAX_COLUMNS - used_columns(cursor, self._target.table)
        self._pins = _pinned_by_hand(self._present) | _as_postgres_says(cursor, self._target.pins)
        cursor.execute("drop table if exists pg_temp.stage")
        cursor.execute(
            "create temporary table stage (_ordinal bigint generated always as identity)"
        )
        return not self._present or keys.is_put_off(cursor, self._target.table)

    def add(self, cursor: Cursor, frames: Sequence[Frame]) -> None:
        """COPY rows into the stage, which takes on the columns it lacks.

        Raises:
            MisfitError: when Postgres, or the contract, refuses one of them; none is added then.
            BadPayloadError: when the table is frozen and they don't fit.
        """
        before = self._names, self._beyond_double
        cursor.execute("savepoint before_frames")
        try:
            self._add(cursor, frames)
        except (MisfitError, *REFUSALS) as error:
            cursor.execute("rollback to savepoint before_frames")
            self._names, self._beyond_double = before
            raise error if isinstance(error, MisfitError) else _refused(error) from error
        cursor.execute("release savepoint before_frames")

    def has_unique_keys(self, frames: Sequence[Frame], fields: Sequence[str]) -> bool:
        """Whether no two rows have the same key, for sure; `fields` are those of the key."""
        is_pinned = not self._pins.keys().isdisjoint(self._target.key)
        return not is_pinned and keys.are_unique(frames, fields)

    def _add(self, cursor: Cursor, frames: Sequence[Frame]) -> None:
        self._make_room(cursor, frames, partial(self._evolve, cursor, STAGE))
        self._copy(cursor, STAGE, frames)
        if len(self._names) > WIDE_COLUMNS:
            self._try(cursor, sum(frame.count for frame in frames))

    def _try(self, cursor: Cursor, count: int) -> None:
        """See whether the newest rows of the stage would have room in the raw table.

        Its rows may be larger than the stage's: more columns, and wider types of some.
        """
        staged = column_types(cursor, STAGE)
        del staged["_ordinal"]
        present = column_types(cursor, self._target.table)
        if present:
            changes = self._changes(cursor, self._target.table, present, staged)
            like = sql.SQL("create temporary table trial (like {})").format(self._target.table)
            cursor.execute(like)
            apply(cursor, TRIAL, changes)
        else:
            create_table(cursor, TRIAL, staged, [])
        parts = self._parts(cursor, staged, TRIAL)
        cursor.execute(_TRY.format(**parts), {"load_id": 0, "count": count})
        cursor.execute("drop table pg_temp.trial")

    def add_directly(
        self, cursor: Cursor, frames: Sequence[Frame], load_id: int, puts_off_key: bool
    ) -> list[Change] | None:
        """COPY rows straight into the raw table; with `puts_off_key`, a new one is without its key.

        Returns None, and leaves the table as it was, when it has a row with the key of one of
        them, or Postgres refuses one: then they have to go by way of the stage.
        """
        before = self._names, self._beyond_double
        cursor.execute("savepoint before_copy")
        cursor.execute("select set_config('elt.load_id', %s, true)", [str(load_id)])
        try:
            shape = partial(self._shape, cursor, puts_off_key=puts_off_key)
            changes = self._make_room(cursor, frames, shape)
            self._copy(cursor, self._target.table, frames)
            return changes
        except (psycopg2.errors.UniqueViolation, MisfitError, *REFUSALS):
            cursor.execute("rollback to savepoint before_copy")
            self._names, self._beyond_double = before
            return None

    def _make_room(
        self,
        cursor: Cursor,
        frames: Sequence[Frame],
        shape: Callable[[Mapping[str, str]], list[Change]],
    ) -> list[Change]:
        """Have a table shaped for what each frame needs, once for those that need the same.

        None of their rows is in it yet: what an earlier one of them fills counts as filled.
        """
        self._filled = frozenset()
        changes: list[Change] = []
        seen: set[object] = set()
        for frame in frames:
            wanted = self._wanted(frame)
            self._hold_to_contract(cursor, frame)
            need = (frozenset(wanted.items()), len(self._names))
            if need not in seen:
                changes += shape(wanted)
                seen.add(need)
            self._filled |= wanted.keys()
        self._filled = frozenset()
        return changes

    def _wanted(self, frame: Frame) -> dict[str, str]:
        """The frame's columns that hold any value, with their types; its other fields are noted."""
        self._names = column_names(dict.fromkeys([*self._names, *frame.natural]))
        new = {*self._names.values()} - self._present.keys()
        if len(new) > self._room:
            raise MisfitError(
                f"would bring its table to {len(self._present) + len(new)} columns, and Postgres "
                f"takes {MAX_COLUMNS} with those that were dropped"
            )
        self._beyond_double |= {self._names[field] for field in frame.beyond_double}
        return {name: kind for name, kind in self._types(frame).items() if kind is not None}

    def _types(self, frame: Frame) -> dict[str, str | None]:
        """What the frame's columns are to be; None for those that hold nulls alone."""
        kinds = {self._names[field]: kind for field, kind in frame.natural.items()}
        return {name: kind and self._pins.get(name, kind) for name, kind in kinds.items()}

    def _hold_to_contract(self, cursor: Cursor, frame: Frame) -> None:
        """Refuse a frame that a table with a contract would have to change for."""
        if self._target.contract == "evolve" or not self._present:
            return
        changes = self._changes(cursor, self._target.table, self._present, self._types(frame))
        if not changes:
            return
        differences = ", ".join(map(str, changes))
        if self._target.contract == "quarantine":
            raise MisfitError(f"would need {differences}")
        raise BadPayloadError(
            f"{self._target.table.as_string(cursor)} is frozen, and the API's records would need "
            f"{differences}. Ask the API's owner; to accept it, alter the table, or load once with "
            "the contract `evolve`."
        )

    def _copy(self, cursor: Cursor, table: sql.Identifier, frames: Sequence[Frame]) -> None:
        """COPY the columns that hold a value."""
        types = column_types(cursor, table)
        for fields, alike in groupby(frames, _valued_fields):
            if not fields:
                cursor.execute(_ADD_NULLS.format(table), [sum(frame.count for frame in alike)])
                continue
            kinds = {field: types[self._names[field]] for field in fields}
            columns = _listed("{}", [self._names[field] for field in fields])
            sources = (frame.copy_source(kinds) for frame in alike)
            for form, parts in groupby(sources, itemgetter(0)):
                command = _COPY.format(table, columns, sql.SQL(form))
                rows = io.BytesIO(b"".join(rows for _, rows in parts))
                cursor.copy_expert(command, rows, size=COPY_BYTES)

    def _evolve(
        self, cursor: Cursor, table: sql.Identifier, wanted: Mapping[str, str | None]
    ) -> list[Change]:
        changes = self._changes(cursor, table, column_types(cursor, table), wanted)
        apply(cursor, table, changes)
        return changes

    def _changes(
        self,
        cursor: Cursor,
        table: sql.Identifier,
        present: Mapping[str, str],
        wanted: Mapping[str, str | None],
    ) -> list[Change]:
        pinned = frozenset(self._pins)
        beyond = self._beyond_double
        return changes_for(cursor, table, present, wanted, pinned, beyond, self._filled)

    def give_key(self, cursor: Cursor) -> None:
        """Give the raw table its key, where that was put off."""
        keys.give(cursor, self._target.table, self._target.key)

    def publish(
        self,
        cursor: Cursor,
        disposition: Disposition,
        load_id: int,
        replays: int | None = None,
        may_repeat_keys: bool = True,
    ) -> tuple[Published, list[Change]]:
        """Bring the staged rows into the raw table and empty the stage.

        Where several of them may have the same key, the last one counts. Rows that a load after
        `replays` wrote are newer than what is replayed: they stay. What a replay wrote is as old as
        the load that it replayed.
        """
        self._may_repeat_keys = may_repeat_keys
        staged = column_types(cursor, STAGE)
        changes = self._shape(cursor, staged)
        self.give_key(cursor)
        published = Published()
        if column_types(cursor, self._target.table):
            write = {"merge": self._merge, "append": self._append, "replace": self._replace}
            ids = {"load_id": load_id, "replays": replays}
            published = write[disposition](cursor, staged, ids)
        cursor.execute("truncate pg_temp.stage")
        return published, changes

    def _shape(
        self, cursor: Cursor, staged: Mapping[str, str], puts_off_key: bool = False
    ) -> list[Change]:
        """Create or widen the raw table, one session at a time."""
        table = self._target.table
        keys.lock(cursor, table)
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
        if puts_off_key:
            keys.put_off(cursor, table)
        return []

    def _merge(self, cursor: Cursor, staged: Mapping[str, str], ids: Ids) -> Published:
        """Insert and update; as every record has its key, no column of it means no record."""
        if not staged.keys() >= set(self._target.key):
            return Published()
        parts = self._merge_parts(cursor, staged)
        if self._may_repeat_keys:
            cursor.execute(_DROP_EARLIER.format(**parts))
        cursor.execute(_LOOK_UP, {"joins": "off"})
        cursor.execute(_COMPARE.format(**parts), ids)
        cursor.execute(_UPDATE.format(**parts), ids)
        updated = cursor.rowcount
        cursor.execute(_LOOK_UP, {"joins": "on"})
        cursor.execute(_INSERT.format(**parts), ids)
        inserted = cursor.rowcount
        cursor.execute("drop table pg_temp.differing")
        return Published(inserted, updated)

    def _append(self, cursor: Cursor, staged: Mapping[str, str], ids: Ids) -> Published:
        cursor.execute(_APPEND.format(**self._parts(cursor, staged, self._target.table)), ids)
        return Published(cursor.rowcount)

    def _replace(self, cursor: Cursor, staged: Mapping[str, str], ids: Ids) -> Published:
        """Merge and remove what was not sent; without a key, remove all and insert all."""
        types = column_types(cursor, self._target.table)
        scope = [_holds(name, types[name], value) for name, value in self._target.scope.items()]
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
        published = write(cursor, staged, ids)
        return Published(published.inserted, published.updated, deleted)

    def _parts(
        self, cursor: Cursor, staged: Mapping[str, str], table: sql.Identifier
    ) -> dict[str, sql.Composable]:
        types = column_types(cursor, table)
        columns = [name for name in staged if name not in OWN_COLUMNS]
        values = [converted(name, staged[name], types[name]) for name in columns]
        return {
            "table": table,
            "stage": STAGE,
            "columns": _listed("{}", [*columns, "_loaded_at", "_load_id"]),
            "values": sql.SQL(", ").join([*values, sql.SQL("now()"), sql.SQL("%(load_id)s")]),
        }

    def _merge_parts(self, cursor: Cursor, staged: Mapping[str, str]) -> dict[str, sql.Composable]:
        """All columns are compared and set: a field that a record lacks is null, as it says."""
        types = column_types(cursor, self._target.table)
        key = self._target.key
        rest = [name for name in types if name not in {*key, *OWN_COLUMNS}]
        values = [
            sql.SQL("{} as {}").format(
                converted(name, staged[name], types[name])
                if name in staged
                else sql.SQL("null::{}").format(sql.SQL(types[name])),
                sql.Identifier(name),
            )
            for name in [*key, *rest]
        ]
        own = sql.SQL("now(), %(load_id)s")
        set_own = sql.SQL("_loaded_at = now(), _load_id = %(load_id)s")
        return {
            "table": self._target.table,
            "stage": STAGE,
            "key": _listed("{}", key),
            "staged_key": _listed("staged.{}", key),
            "latest_key": _listed("latest.{}", key),
            "values": sql.SQL(", ").join(values),
            "columns": _listed("{}", [*key, *rest, "_loaded_at", "_load_id"]),
            "new": sql.SQL(", ").join([_listed("{}", [*key, *rest]), own]),
            "same_key": _listed("present.{0} = latest.{0}", key, " and "),
            "present": _listed("present.{}", rest),
            "latest": _listed("latest.{}", rest),
            "assignments": sql.SQL(", ").join([*_each("{0} = latest.{0}", rest), set_own]),
        }


def _valued_fields(frame: Frame) -> tuple[str, ...]:
    return tuple(field for field, kind in frame.natural.items() if kind is not None)


def _listed(template: str, names: Iterable[str], separator: str = ", ") -> sql.Composed:
    return sql.SQL(separator).join(_each(template, names))


def _each(template: str, names: Iterable[str]) -> list[sql.Composed]:
    return [sql.SQL(template).format(sql.Identifier(name)) for name in names]


def _holds(name: str, kind: str, value: object) -> sql.Composed:
    """The condition that a column has the value: compared as what it is stored as."""
    column = sql.Identifier(name)
    if value is None:
        return sql.SQL("present.{} is null").format(column)
    text = sql.Literal(text_in(value, kind))
    return sql.SQL("present.{} = {}::{}").format(column, text, sql.SQL(kind))


def _refused(error: psycopg2.Error) -> MisfitError:
    said = error.diag.message_primary or str(error)
    return MisfitError(f"was refused by Postgres: {' '.join(said.split())}")


def _pinned_by_hand(present: Mapping[str, str]) -> dict[str, str]:
    """The table's columns of types that no load chose: altered by hand, or pinned formerly."""
    return {
        name: kind
        for name, kind in present.items()
        if kind not in NATURAL and name not in OWN_COLUMNS
    }


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
