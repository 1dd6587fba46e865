"""Moving what was built and tested in the audit schemas to where consumers read it.

All of it in the caller's transaction: a consumer sees every relation as it was before, or every one
as it is after. Grants, comments, indexes made by hand, and views that read what is replaced stay.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from psycopg2 import errors, sql
from psycopg2.extensions import cursor as Cursor

from flows.errors import ConfigurationError, UnavailableError
from flows.load import schemas
from flows.load.attached import KINDS, Attached, Grant, attach, attached_to
from flows.load.views import without_dependent_views

AUDIT = "__audit"  # what the schemas end with in which a build is tested
LOCK_TIMEOUT_SECONDS = 30
SNAPSHOTS = "snapshots"  # the schema of what can't be built again: history
SCHEMA = "dbt"  # of what is noted of builds, and where a table waits while two change places
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
_LEFTOVERS = """
select nspname, relname
from pg_class join pg_namespace on pg_namespace.oid = relnamespace
where right(nspname, length(%s)) = %s and relkind in ('r', 'p', 'v', 'm')
    and pg_has_role(nspowner, 'usage')
"""
_COPY = (
    "create table {copy} (like {published} including all)",
    "insert into {copy} select * from {published}",
)


class Name(NamedTuple):
    """A relation's schema and name."""

    schema: str
    relation: str

    @property
    def quoted(self) -> sql.Identifier:
        """As a statement has it."""
        return sql.Identifier(self.schema, self.relation)


@dataclass(frozen=True)
class Relation:
    """A table or view that a build made.

    Attributes:
        audited: where it was built.
        published: where it goes.
        is_kept: what it replaces goes where it was built, and is what the next build goes on with.
    """

    audited: Name
    published: Name
    is_kept: bool = False


@dataclass(frozen=True)
class _Old:
    """What a relation replaces."""

    kind: str
    attached: Attached
    indexes: list[str]


def publish(cursor: Cursor, relations: Sequence[Relation]) -> None:
    """Move all relations to their place, in the caller's transaction.

    Raises:
        ConfigurationError: when a view of a consumer's would not survive; nothing is moved then.
        UnavailableError: when a consumer's transaction holds one of them for too long.
    """
    cursor.execute(f"set local lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'")
    for schema in {relation.published.schema for relation in relations}:
        schemas.ensure(cursor, schema)
    places = [relation.published.quoted for relation in relations]
    try:
        before = [_old(cursor, relation.published) for relation in relations]
        with without_dependent_views(cursor, *places, replaced=True):
            for relation, old in zip(relations, before, strict=True):
                _replace(cursor, relation, old)
    except errors.LockNotAvailable as error:
        raise UnavailableError(
            f"Nothing is published: another session has held a mart for {LOCK_TIMEOUT_SECONDS} s. "
            "Look for long transactions in pg_stat_activity, then run this again."
        ) from error
    except (errors.UndefinedColumn, errors.DependentObjectsStillExist) as error:
        raise ConfigurationError(
            "Nothing is published: something of a consumer's depends on what would be replaced, "
            f"and can't be kept. Change it or drop it, then run this again. Postgres says: {error}"
        ) from error
    except errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            "Nothing is published: this role may not replace what is there, or a view on it that "
            "is another role's. Grant it that role (docs/transform.md), then run this again. "
            f"Postgres says: {error}"
        ) from error


def _replace(cursor: Cursor, relation: Relation, old: _Old | None) -> None:
    is_kept = relation.is_kept and old is not None and old.kind == "r"
    if is_kept:
        _move(cursor, relation.published, SCHEMA)
    else:
        _drop(cursor, relation.published)
    _move(cursor, relation.audited, relation.published.schema)
    if old is None:
        cursor.execute(_DEFAULT_GRANTS, [relation.published.schema])
        default = Attached(grants=[Grant(*row) for row in cursor])
        attach(cursor, relation.published.quoted, default)
    else:
        attach(cursor, relation.published.quoted, old.attached)
        _add_missing_indexes(cursor, relation.published, old.indexes)
    if is_kept:
        waiting = Name(SCHEMA, relation.published.relation)
        _move(cursor, waiting, relation.audited.schema)


def is_there(cursor: Cursor, name: Name) -> bool:
    """Whether there is a relation of that name."""
    cursor.execute(_KIND, [name.quoted.as_string(cursor)])
    return cursor.fetchone() is not None


def _old(cursor: Cursor, name: Name) -> _Old | None:
    cursor.execute(_KIND, [name.quoted.as_string(cursor)])
    row = cursor.fetchone()
    if row is None:
        return None
    kind, oid = row
    attached = attached_to(cursor, oid)
    cursor.execute(_INDEXES, [oid])
    return _Old(kind, attached, [definition for (definition,) in cursor])


def _drop(cursor: Cursor, name: Name, cascade: bool = False) -> None:
    """Drop a relation, of whatever kind, if it is there."""
    cursor.execute(_KIND, [name.quoted.as_string(cursor)])
    if row := cursor.fetchone():
        statement = sql.SQL("drop {} {} {}")
        cascading = sql.SQL("cascade" if cascade else "")
        cursor.execute(statement.format(sql.SQL(KINDS[row[0]]), name.quoted, cascading))


def _move(cursor: Cursor, name: Name, schema: str) -> None:
    statement = sql.SQL("alter table {} set schema {}")
    cursor.execute(statement.format(name.quoted, sql.Identifier(schema)))


def _add_missing_indexes(cursor: Cursor, name: Name, definitions: Sequence[str]) -> None:
    """Make the indexes again that were there and are not: those that dbt did not make."""
    cursor.execute(_KIND, [name.quoted.as_string(cursor)])
    [(_, oid)] = cursor.fetchall()
    cursor.execute(_INDEXES, [oid])
    there = {_without_names(definition) for (definition,) in cursor}
    for definition in definitions:
        if _without_names(definition) not in there:
            cursor.execute(definition)


def _without_names(definition: str) -> str:
    return re.sub(r"^(CREATE (?:UNIQUE )?INDEX) .*? USING ", r"\1 USING ", definition)


def drop_leftovers(cursor: Cursor, suffix: str, kept: Collection[Name] = ()) -> None:
    """Drop what earlier builds left in the schemas of that suffix, but for the relations `kept`."""
    cursor.execute(_LEFTOVERS, [suffix, suffix])
    for name in [Name(*row) for row in cursor.fetchall()]:
        if name not in kept:
            _drop(cursor, name, cascade=True)


def copy_history(cursor: Cursor, suffix: str) -> None:
    """Copy the published snapshots to where a build adds to them.

    A build that fails has added to the copy alone. All of them are copied, also those that no
    manifest knows: what replaces a snapshot must hold what that held.
    """
    schema = f"{SNAPSHOTS}{suffix}"
    cursor.execute("select tablename from pg_tables where schemaname = %s", [SNAPSHOTS])
    for (table,) in cursor.fetchall():
        schemas.ensure(cursor, schema)
        names = {"copy": Name(schema, table).quoted, "published": Name(SNAPSHOTS, table).quoted}
        for statement in _COPY:
            cursor.execute(sql.SQL(statement).format(**names))
