"""Publish: move the relations that were built and tested from audit to published schemas.

All in the caller's transaction: a reader sees all relations as before, or all as after. Keeps
grants, comments, indexes, triggers and policies made by hand, and views that read a replaced
relation. Never replaces a relation that no build published.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from psycopg2 import errors, sql
from psycopg2.extensions import cursor as Cursor

from flows.errors import ConfigurationError, UnavailableError
from flows.postgres import locks, schemas
from flows.postgres.dependent_views import without_dependent_views
from flows.postgres.grants import KINDS, Attachments, Grant, attach, attachments_of

AUDIT = "__audit"  # suffix of the schemas in which builds are tested
LOCK_TIMEOUT_SECONDS = 30
SCHEMA = "dbt"  # holds the records of builds
_KIND = "select relkind::text, oid from pg_class where oid = to_regclass(%s)"
_DEFAULT_GRANTS = """
select privilege_type, case when grantee = 0 then null else pg_get_userbyid(grantee) end
from pg_default_acl, aclexplode(defaclacl)
where defaclnamespace = to_regnamespace(quote_ident(%s)) and defaclobjtype = 'r'
    and defaclrole = current_user::regrole and grantee <> defaclrole
"""
_INDEXES = """
select pg_get_indexdef(indexrelid)
from pg_index where indrelid = %s
    and not exists (select from pg_constraint where conindid = indexrelid)
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
    """

    audited: RelationName
    published: RelationName


@dataclass(frozen=True)
class _Old:
    """What a relation replaces."""

    attached: Attachments
    indexes: list[str]


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


def publish(cursor: Cursor, relations: Sequence[Relation], ours: Collection[RelationName]) -> None:
    """Move all relations to their published schemas, in the caller's transaction.

    Replaces only relations in `ours`.

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
        before = [_old(cursor, relation.published) for relation in relations]
        with without_dependent_views(cursor, *places, replaced=True):
            for relation, old in zip(relations, before, strict=True):
                _replace(cursor, relation, old)
    except errors.LockNotAvailable as error:
        cursor.execute("rollback to savepoint before_publish")
        raise UnavailableError(
            f"Nothing is published: for {LOCK_TIMEOUT_SECONDS} s, a lock on a mart was held by "
            f"{locks.holders(cursor, places, readers=True)}"
        ) from error
    except (
        errors.UndefinedColumn,
        errors.WrongObjectType,
        errors.DependentObjectsStillExist,
    ) as error:
        raise ConfigurationError(
            "Nothing is published: a consumer's object depends on a relation to be replaced, and "
            f"can't be kept. Change or drop it, then run this again. Postgres reports: {error}"
        ) from error
    except errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            "Nothing is published: this role may not replace a relation, or a view on it, that "
            "another role owns. Grant it that role (docs/transform.md), then run this again. "
            f"Postgres reports: {error}"
        ) from error


def _replace(cursor: Cursor, relation: Relation, old: _Old | None) -> None:
    drop(cursor, relation.published)
    _move(cursor, relation.audited, relation.published.schema)
    if old is None:
        cursor.execute(_DEFAULT_GRANTS, [relation.published.schema])
        default = Attachments(grants=[Grant(*row) for row in cursor])
        attach(cursor, relation.published.quoted, default)
    else:
        attach(cursor, relation.published.quoted, old.attached)
        _add_missing_indexes(cursor, relation.published, old.indexes)


def exists(cursor: Cursor, name: RelationName) -> bool:
    """Whether there is a relation of that name."""
    cursor.execute(_KIND, [name.quoted.as_string(cursor)])
    return cursor.fetchone() is not None


def _old(cursor: Cursor, name: RelationName) -> _Old | None:
    cursor.execute(_KIND, [name.quoted.as_string(cursor)])
    row = cursor.fetchone()
    if row is None:
        return None
    _, oid = row
    attached = attachments_of(cursor, oid)
    cursor.execute(_INDEXES, [oid])
    return _Old(attached, [definition for (definition,) in cursor])


def drop(cursor: Cursor, name: RelationName) -> None:
    """Drop a relation of any kind, if it exists; never what depends on it."""
    cursor.execute(_KIND, [name.quoted.as_string(cursor)])
    if row := cursor.fetchone():
        cursor.execute(sql.SQL("drop {} {}").format(sql.SQL(KINDS[row[0]]), name.quoted))


def _move(cursor: Cursor, name: RelationName, schema: str) -> None:
    statement = sql.SQL("alter table {} set schema {}")
    cursor.execute(statement.format(name.quoted, sql.Identifier(schema)))


def _add_missing_indexes(cursor: Cursor, name: RelationName, definitions: Sequence[str]) -> None:
    """Recreate the indexes that dbt did not create."""
    cursor.execute(_KIND, [name.quoted.as_string(cursor)])
    [(_, oid)] = cursor.fetchall()
    cursor.execute(_INDEXES, [oid])
    there = {_without_names(definition) for (definition,) in cursor}
    for definition in definitions:
        if _without_names(definition) not in there:
            cursor.execute(definition)


def _without_names(definition: str) -> str:
    return re.sub(r"^(CREATE (?:UNIQUE )?INDEX) .*? USING ", r"\1 USING ", definition)
