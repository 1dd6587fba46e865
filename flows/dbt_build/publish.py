"""Publish: move the relations that were built and tested from audit to published schemas.

All in the caller's transaction: a reader sees all relations as before, or all as after. Keeps
grants, comments, indexes, constraints, triggers and policies made by hand, and views and foreign
keys on a replaced relation. What an earlier build made and this one did not is gone: builds record
what they made. Never replaces a relation that no build published.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from psycopg2 import ProgrammingError, errors, sql
from psycopg2.extensions import cursor as Cursor

from flows.dbt_build import foreign_keys
from flows.dbt_build.foreign_keys import ForeignKey
from flows.dbt_build.table_parts import FOREIGN_KEY, TablePart, add, parts_of
from flows.errors import ConfigurationError, UnavailableError
from flows.postgres import locks, schemas
from flows.postgres.dependent_views import without_dependent_views
from flows.postgres.grants import KINDS, Attachments, Grant, attach, attachments_of

AUDIT = "__audit"  # suffix of the schemas in which builds are tested
LOCK_TIMEOUT_SECONDS = 30
SCHEMA = "dbt"  # holds the records of builds
_KIND = "select relkind::text, oid from pg_class where oid = to_regclass(%s)"
_TABLES = """
select name from unnest(%s) as name join pg_class on oid = to_regclass(name) where relkind = 'r'
"""
_DEFAULT_GRANTS = """
select privilege_type, case when grantee = 0 then null else pg_get_userbyid(grantee) end
from pg_default_acl, aclexplode(defaclacl)
where defaclnamespace = to_regnamespace(quote_ident(%s)) and defaclobjtype = 'r'
    and defaclrole = current_user::regrole and grantee <> defaclrole
"""


class RelationName(NamedTuple):
    """A relation's schema and name."""

    schema: str
    relation: str

    @property
    def quoted(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.relation)


@dataclass(frozen=True)
class Relation:
    """A table or view that a build made.

    Attributes:
        audited: where it was built.
        published: where it goes.
        is_copy: dbt added to a copy of what is published, which has neither its foreign keys nor
            its grants, triggers and policies.
    """

    audited: RelationName
    published: RelationName
    is_copy: bool = False


# What builds attached to the relations that they published: the keys of grants, comments, rules,
# indexes and constraints.
Made = Mapping[RelationName, frozenset[str]]


@dataclass(frozen=True)
class _Old:
    """What a relation replaces.

    Attributes:
        by_hand: the keys of what no build attached.
    """

    oid: int
    attached: Attachments
    parts: Sequence[TablePart]
    by_hand: frozenset[str]


def refuse_others(
    cursor: Cursor, relations: Iterable[Relation], ours: Collection[RelationName]
) -> None:
    """Refuse to replace relations that are not in `ours`, those that builds published.

    Raises:
        ConfigurationError: when another relation has the name of one to publish.
    """
    others = [
        relation.published
        for relation in relations
        if relation.published not in ours and exists(cursor, relation.published)
    ]
    if others:
        names = ", ".join(f"{name.schema}.{name.relation}" for name in others)
        raise ConfigurationError(
            f"Nothing is published: no build made {names}, so no build replaces it. Rename or "
            "drop it, or name it in the parameter `replace` of one run of `transform`."
        )


def publish(cursor: Cursor, relations: Sequence[Relation], ours: Made) -> Made:
    """Move all relations to their published schemas, in the caller's transaction.

    Replaces only relations in `ours`. Returns what the build attached to each.

    Raises:
        ConfigurationError: when a consumer's object can't be kept, or a relation to replace is not
            in `ours`; nothing is moved then.
        UnavailableError: when a consumer's transaction locks one of them for too long.
    """
    cursor.execute(f"set local lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'")
    for schema in {relation.published.schema for relation in relations}:
        schemas.ensure(cursor, schema)
    refuse_others(cursor, relations, ours)
    places = [relation.published.quoted for relation in relations]
    cursor.execute("savepoint before_publish")
    try:
        return _replace_all(cursor, relations, ours)
    except errors.LockNotAvailable as error:
        cursor.execute("rollback to savepoint before_publish")
        locked = [*places, *foreign_keys.referring_tables(cursor, places)]
        raise UnavailableError(
            f"Nothing is published: for {LOCK_TIMEOUT_SECONDS} s, a lock on a mart was held by "
            f"{locks.holders(cursor, locked, readers=True)}"
        ) from error
    except errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            "Nothing is published: this role may not replace a relation, or a view or foreign key "
            "on it, that another role owns. Grant it that role (docs/transform.md), then run this "
            f"again. Postgres reports: {error}"
        ) from error
    except errors.DuplicateTable as error:
        raise ConfigurationError(
            "Nothing is published: something else has the name of a relation or index of this "
            f"build. Rename or drop it, then run this again. Postgres reports: {error}"
        ) from error
    except (ProgrammingError, errors.DependentObjectsStillExist) as error:
        raise ConfigurationError(
            "Nothing is published: a consumer's object depends on a relation to be replaced, and "
            f"can't be kept. Change or drop it, then run this again. Postgres reports: {error}"
        ) from error


def _replace_all(cursor: Cursor, relations: Sequence[Relation], ours: Made) -> Made:
    """Replace all relations, and what others made on them.

    All are dropped before the first moves, because an index may have the name of another's old one.
    Foreign keys come last, because they need the keys that they refer to.
    """
    places = [relation.published for relation in relations]
    quoted = [place.quoted for place in places]
    old = _all_old(cursor, places, ours)
    with without_dependent_views(cursor, *quoted, replaced=True):
        _lock(cursor, quoted)
        # Again: while this waited for a table, others may have changed it.
        old |= _all_old(cursor, [place for place in places if exists(cursor, place)], ours)
        referring = foreign_keys.drop_referring(cursor, quoted)
        for place in places:
            drop(cursor, place)
        for relation in relations:
            _move(cursor, relation.audited, relation.published.schema)
        new = {each.published: _inherit(cursor, each, old, referring) for each in relations}
        replaced = {each.oid for each in old.values() if each}
        foreign_keys.restore(cursor, [key for key in referring if key.table not in replaced])
        for place, (_, own_keys) in new.items():
            add(cursor, place.quoted, own_keys)
    return {place: made for place, (made, _) in new.items()}


def _inherit(
    cursor: Cursor,
    relation: Relation,
    all_old: Mapping[RelationName, _Old | None],
    referring: Iterable[ForeignKey],
) -> tuple[frozenset[str], list[TablePart]]:
    """Attach to a published relation what the one before it had.

    Returns the keys of what the build attached, and the foreign keys that are still to add.
    """
    name, old = relation.published, all_old[relation.published]
    cursor.execute(_KIND, [name.quoted.as_string(cursor)])
    [(_, oid)] = cursor.fetchall()
    parts = [*parts_of(cursor, oid), *(key.part for key in referring if key.table == oid)]
    there = attachments_of(cursor, oid).keys | {part.key for part in parts}
    if old is None:
        cursor.execute(_DEFAULT_GRANTS, [name.schema])
        attach(cursor, name.quoted, Attachments(grants=[Grant(*row) for row in cursor]))
        return frozenset(there), []
    kept = old.attached if relation.is_copy else old.attached.only(old.by_hand)
    attach(cursor, name.quoted, kept)
    missing = [
        part
        for part in old.parts
        if part.key not in there
        and (part.key in old.by_hand or (relation.is_copy and part.kind == FOREIGN_KEY))
    ]
    add(cursor, name.quoted, [part for part in missing if part.kind != FOREIGN_KEY])
    if relation.is_copy:
        there = (there | kept.keys | {part.key for part in missing}) - old.by_hand
    return frozenset(there), [part for part in missing if part.kind == FOREIGN_KEY]


def exists(cursor: Cursor, name: RelationName) -> bool:
    """Whether there is a relation of that name."""
    cursor.execute(_KIND, [name.quoted.as_string(cursor)])
    return cursor.fetchone() is not None


def _lock(cursor: Cursor, names: Iterable[sql.Identifier]) -> None:
    """Lock those that are tables. To lock a view would lock the tables that it reads as well.

    Readers of views lock the view first, then its tables; so publishing does the same.
    """
    cursor.execute(_TABLES, [[name.as_string(cursor) for name in names]])
    if tables := [sql.SQL(name) for (name,) in cursor]:
        cursor.execute(sql.SQL("lock table {}").format(sql.SQL(", ").join(tables)))


def _all_old(
    cursor: Cursor, places: Iterable[RelationName], ours: Made
) -> dict[RelationName, _Old | None]:
    return {place: _old(cursor, place, ours.get(place, frozenset())) for place in places}


def _old(cursor: Cursor, name: RelationName, made: frozenset[str]) -> _Old | None:
    cursor.execute(_KIND, [name.quoted.as_string(cursor)])
    row = cursor.fetchone()
    if row is None:
        return None
    _, oid = row
    attached, parts = attachments_of(cursor, oid), parts_of(cursor, oid)
    keys = attached.keys | {part.key for part in parts}
    return _Old(oid, attached, parts, frozenset(keys - made))


def drop(cursor: Cursor, name: RelationName) -> None:
    """Drop a relation of any kind, if it exists; never what depends on it."""
    cursor.execute(_KIND, [name.quoted.as_string(cursor)])
    if row := cursor.fetchone():
        cursor.execute(sql.SQL("drop {} {}").format(sql.SQL(KINDS[row[0]]), name.quoted))


def _move(cursor: Cursor, name: RelationName, schema: str) -> None:
    statement = sql.SQL("alter table {} set schema {}")
    cursor.execute(statement.format(name.quoted, sql.Identifier(schema)))
