"""Grants, comments and rules of a relation, copied to its replacement."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

KINDS = {"r": "table", "p": "table", "v": "view", "m": "materialized view"}  # by pg_class.relkind
_GRANTS = """
select
    entry.privilege_type,
    case when entry.grantee = 0 then null else pg_get_userbyid(entry.grantee) end,
    entry.is_grantable,
    lists.attname
from pg_class
cross join lateral (
    select null::name as attname, relacl as privileges
    union all
    select attname, attacl from pg_attribute where attrelid = pg_class.oid and not attisdropped
) as lists
cross join lateral aclexplode(lists.privileges) as entry
where pg_class.oid = %s and entry.grantee <> pg_class.relowner
"""
_COMMENTS = """
select attname, description
from pg_description
left join pg_attribute on attrelid = objoid and attnum = objsubid and objsubid > 0
where classoid = 'pg_class'::regclass and objoid = %s
"""
# A table's column defaults come from the build; a view's are always made by hand.
_RULES = """
select 'trigger', tgname::text, pg_get_triggerdef(pg_trigger.oid)
    || case tgenabled
        when 'D' then format('; alter table %%s disable trigger %%I', tgrelid::regclass, tgname)
        when 'R' then
            format('; alter table %%s enable replica trigger %%I', tgrelid::regclass, tgname)
        when 'A' then
            format('; alter table %%s enable always trigger %%I', tgrelid::regclass, tgname)
        else ''
    end
from pg_trigger where tgrelid = %(oid)s and not tgisinternal
union all
select 'rule', rulename::text, pg_get_ruledef(oid)
from pg_rewrite where ev_class = %(oid)s and rulename <> '_RETURN'
union all
select 'policy', polname::text, format(
    'create policy %%I on %%s as %%s for %%s to %%s%%s%%s',
    polname,
    polrelid::regclass,
    case when polpermissive then 'permissive' else 'restrictive' end,
    case polcmd
        when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete'
        else 'all'
    end,
    (
        select string_agg(case when role = 0 then 'public' else role::regrole::text end, ', ')
        from unnest(polroles) as role
    ),
    ' using (' || pg_get_expr(polqual, polrelid) || ')',
    ' with check (' || pg_get_expr(polwithcheck, polrelid) || ')'
)
from pg_policy where polrelid = %(oid)s
union all
select
    'row security',
    setting,
    format('alter table %%s %%s row level security', oid::regclass, setting)
from pg_class
cross join lateral unnest(array[
    case when relrowsecurity then 'enable' end,
    case when relforcerowsecurity then 'force' end
]) as setting
where oid = %(oid)s and setting is not null
union all
select 'default', attname::text, format(
    'alter view %%s alter column %%I set default %%s',
    attrelid::regclass, attname, pg_get_expr(adbin, adrelid)
)
from pg_attrdef
join pg_attribute on attrelid = adrelid and attnum = adnum
join pg_class on pg_class.oid = adrelid
where adrelid = %(oid)s and relkind = 'v'
"""
_RELATION = "select oid, relkind::text from pg_class where oid = to_regclass(%s)"
_COLUMNS = "select attname from pg_attribute where attrelid = %s and not attisdropped"


class Grant(NamedTuple):
    """A privilege on a relation, or on one of its columns; grantee None means public."""

    privilege: str
    grantee: str | None
    is_grantable: bool = False
    column: str | None = None

    @property
    def key(self) -> str:
        return f"grant {json.dumps(self)}"


class Comment(NamedTuple):
    """A comment on a relation, or on one of its columns."""

    column: str | None
    text: str

    @property
    def key(self) -> str:
        return f"comment {json.dumps(self)}"


class Rule(NamedTuple):
    """A trigger, rule, policy, row security or view's default, with the statement to create it."""

    kind: str
    name: str
    statement: str

    @property
    def key(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Attachments:
    """Everything that is attached to a relation."""

    grants: Sequence[Grant] = ()
    comments: Sequence[Comment] = ()
    rules: Sequence[Rule] = ()

    @property
    def keys(self) -> set[str]:
        """What identifies each of them, on any relation."""
        lists: tuple[Sequence[Grant | Comment | Rule], ...]
        lists = (self.grants, self.comments, self.rules)
        return {each.key for each_list in lists for each in each_list}

    def only(self, keys: Collection[str]) -> "Attachments":
        """Those with these keys."""
        return Attachments(
            [each for each in self.grants if each.key in keys],
            [each for each in self.comments if each.key in keys],
            [each for each in self.rules if each.key in keys],
        )


def attachments_of(cursor: Cursor, oid: int) -> Attachments:
    cursor.execute(_GRANTS, [oid])
    grants = [Grant(*row) for row in cursor]
    cursor.execute(_COMMENTS, [oid])
    return Attachments(grants, [Comment(*row) for row in cursor], _rules(cursor, oid))


def attach(cursor: Cursor, name: sql.Identifier, attached: Attachments) -> None:
    """Attach everything to a relation, except what belongs to columns that it lacks.

    Existing comments stay.
    """
    cursor.execute(_RELATION, [name.as_string(cursor)])
    [(oid, kind)] = cursor.fetchall()
    cursor.execute(_COLUMNS, [oid])
    places = {None, *(column for (column,) in cursor)}
    cursor.execute(_COMMENTS, [oid])
    commented = {column for column, _ in cursor}
    for grant in attached.grants:
        if grant.column in places:
            cursor.execute(_grant_statement(name, grant))
    for comment in attached.comments:
        if comment.column in places - commented:
            cursor.execute(_comment_statement(name, KINDS[kind], comment))
    there = {(rule.kind, rule.name) for rule in _rules(cursor, oid)}
    for rule in attached.rules:
        if (rule.kind, rule.name) not in there:
            cursor.execute(rule.statement)


def _rules(cursor: Cursor, oid: int) -> list[Rule]:
    cursor.execute(_RULES, {"oid": oid})
    return [Rule(*row) for row in cursor]


def _grant_statement(name: sql.Identifier, grant: Grant) -> sql.Composed:
    column = sql.SQL("({})").format(sql.Identifier(grant.column)) if grant.column else sql.SQL("")
    return sql.SQL("grant {} {} on {} to {} {}").format(
        sql.SQL(grant.privilege),
        column,
        name,
        sql.SQL("public") if grant.grantee is None else sql.Identifier(grant.grantee),
        sql.SQL("with grant option" if grant.is_grantable else ""),
    )


def _comment_statement(name: sql.Identifier, kind: str, comment: Comment) -> sql.Composed:
    """Without parameters, for whose sake a `%` in a name would have to be doubled."""
    text = sql.Literal(comment.text)
    if comment.column is None:
        return sql.SQL("comment on {} {} is {}").format(sql.SQL(kind), name, text)
    column = sql.Identifier(comment.column)
    return sql.SQL("comment on column {}.{} is {}").format(name, column, text)
