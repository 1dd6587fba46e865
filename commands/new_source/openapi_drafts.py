"""Drafts of the resources that a person chooses from an OpenAPI document.

Only what the document says is written: a key where an item's path names it, a cursor where a
parameter asks for changes since a time. The rest is said, to be checked.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from commands.new_source import json_schema, openapi_login
from commands.new_source.documents import Document, check_chosen
from commands.new_source.draft import Draft
from commands.new_source.inference import CHANGED, Column, plain, singular
from commands.new_source.literals import Call
from commands.new_source.openapi import PARAM, Endpoint, base_url, endpoints
from commands.new_source.openapi_paging import Paging, paging
from flows.errors import ConfigurationError
from flows.load.column_names import column_name

_SINCE = re.compile(
    r"(?:(?:last)?(updated|modified|changed))(?:at|date|time|on)?(since|after|from|gte|gt|min)"
    r"|(since|after|from|gte|gt|min)(?:last)?(updated|modified|changed)(?:at|date|time|on)?"
)
_LEAVES_OUT = ("after", "gt")


def drafts(
    document: Document,
    source: str,
    chosen: Sequence[str],
    url: str,
    login: Call | None,
    *,
    asks_for_login: bool = True,
) -> list[Draft]:
    """The drafts of the chosen endpoints, parents first.

    Raises:
        ConfigurationError: when one is not in the document, or needs what it does not say.
    """
    known = endpoints(document)
    check_chosen("document", chosen, known)
    picked = sorted((known[name] for name in chosen), key=lambda each: each.path.count("{"))
    operations = [each.operation for each in picked]
    credentials: openapi_login.Login = openapi_login.with_scopes(document, login, operations)
    if login is None and asks_for_login:
        credentials = openapi_login.login(document, source, operations)
    found: list[Draft] = []
    for endpoint in picked:
        made = _draft(endpoint, known, found)
        found.append(
            replace(made, source=source, base_url=base_url(document, url), login=credentials)
        )
    return found


def _draft(endpoint: Endpoint, known: Mapping[str, Endpoint], parents: Sequence[Draft]) -> Draft:
    if endpoint.selector == "-":
        raise ConfigurationError(f"{endpoint.name}: its response is neither JSON nor CSV.")
    path, partitions, filled = _filled_path(endpoint, parents)
    partition_columns = tuple(column.field for column in filled)
    own = _key(endpoint, known)
    key = (*partition_columns, *own) if own else ()
    cursor, params, unclear = _cursor(endpoint, own)
    pages = Paging(None)
    columns = json_schema.columns(endpoint.record, key, filled)
    if endpoint.records is not None:
        pages = paging(endpoint.params, endpoint.has_link, endpoint.body, endpoint.records, own)
    return Draft(
        "",
        "",
        endpoint.name,
        path,
        {**pages.params, **params},
        _selector(endpoint),
        pages.call,
        key,
        None,
        columns,
        lists=json_schema.nested_lists(endpoint.record, columns) if key else (),
        cursor=cursor,
        partitions=partitions,
        partition_columns=partition_columns,
        disposition="" if key else "replace",
        about=endpoint.summary,
        to_check=_on_one_line(
            *(f"the parent: {name}" for name in _told_by_name(partitions)),
            *pages.to_check,
            *unclear,
            *_open(endpoint, {**pages.params, **params}, own, cursor),
            *_told_by_entity(endpoint, known, own),
        ),
        inner_fields=tuple(path for path, _ in json_schema.leaves(endpoint.record) if "." in path),
    )


def _on_one_line(*texts: str) -> tuple[str, ...]:
    return tuple(" ".join(text.split()) for text in texts)


def _selector(endpoint: Endpoint) -> Call:
    if endpoint.selector:
        return Call(endpoint.selector)
    if endpoint.records is None:
        return Call("record_at")
    return Call("records_at", (endpoint.records,) if endpoint.records else ())


def _open(
    endpoint: Endpoint, params: Mapping[str, object], key: Sequence[str], cursor: Call | None
) -> Iterator[str]:
    """What the document leaves open."""
    for name in endpoint.required:
        if name not in params:
            yield f"the parameter {name} is required, and the document names no value"
    if not key:
        yield "the key: no path names the field that identifies a record; loads replace all rows"
    if cursor is None and endpoint.records is not None:
        yield "a cursor: no parameter asks for what changed since a time; every load reads all"
    if not endpoint.record.fields:
        yield "the columns: the document describes none"
    if endpoint.operation.get("servers") or endpoint.shared.get("servers"):
        yield "the address: the document names another server for this path"


def _told_by_name(partitions: Call | None) -> list[str]:
    if partitions is None:
        return []
    parent, columns = partitions.args
    return [
        f"{{{name}}} is filled from {parent}.{column}, by its name"
        for name, column in columns.items()
    ]


def _filled_path(
    endpoint: Endpoint, parents: Sequence[Draft]
) -> tuple[str, Call | None, list[Column]]:
    """The path with a child's placeholders, its partitions, and the columns that these add.

    Raises:
        ConfigurationError: when nothing fills a parameter of the path.
    """
    parts = PARAM.split(endpoint.path.lstrip("/"))
    parts[::2] = [part.replace("{", "{{").replace("}", "}}") for part in parts[::2]]
    if not parts[1::2]:
        return parts[0], None, []
    parent = _parent(endpoint, parents)
    columns: dict[str, str] = {}
    filled = []
    for at, name in enumerate(parts[1::2]):
        column = _parents_column(parent, name) if parent else None
        if column is None:
            raise ConfigurationError(
                f"{endpoint.name}: nothing in the document fills {{{name}}} of {endpoint.path}. "
                "Choose the list that it belongs to as well, e.g. RESOURCES=orders,lines, or "
                "write this one by hand: see RowsOf in docs/sources.md."
            )
        own = _free_column(name, endpoint)
        columns[own] = column.name
        filled.append(replace(column, field=own, name=own, group="id", about="", is_certain=True))
        parts[2 * at + 1] = f"{{{own}}}"
    return "".join(parts), Call("RowsOf", (parent.resource if parent else "", columns)), filled


def _parent(endpoint: Endpoint, parents: Sequence[Draft]) -> Draft | None:
    """The chosen list below whose items the endpoint's path is: the nearest one."""
    before = endpoint.path.rpartition("}")[0]
    lists = sorted(parents, key=lambda draft: len(draft.path), reverse=True)
    return next(
        (
            draft
            for draft in lists
            if draft.partitions is None and before.lstrip("/").startswith(f"{draft.path}/{{")
        ),
        None,
    )


def _parents_column(parent: Draft, name: str) -> Column | None:
    """The parent's column that a parameter of a path names: `id` and `order_id` name an id."""
    wanted = {plain(name), plain(name.removeprefix(parent.entity))}
    short = plain(name).removeprefix(plain(parent.entity))
    found = [each for each in parent.columns if plain(each.name) in wanted | {short}]
    exact = [each for each in found if plain(each.name) == plain(name)]
    return next(iter(exact or found), None)


def _free_column(name: str, endpoint: Endpoint) -> str:
    """The partition's column, with another name than each field of the record."""
    taken = set(map(column_name, endpoint.record.fields))
    wanted = column_name(column_name(name))
    return next(
        each for each in (wanted, f"parent_{wanted}", f"path_{wanted}") if each not in taken
    )


def _key(endpoint: Endpoint, known: Mapping[str, Endpoint]) -> tuple[str, ...]:
    """The field by which a path asks for one record of the list."""
    if endpoint.records is None:
        return ()
    start = f"{endpoint.path.rstrip('/')}/{{"
    for other in known.values():
        rest = other.path[len(start) :]
        if other.path.startswith(start) and rest.endswith("}") and "/" not in rest:
            name = rest[:-1]
            entity = plain(singular(endpoint.name.rpartition("_")[2]))
            wanted = {plain(name), plain(name).removeprefix(entity)} - {""}
            # Of `/tax_rates/{tax_rate}` and `/payment_intents/{intent}`, the id is the field `id`.
            if plain(name) in (entity, plain(singular(endpoint.name))):
                wanted.add("id")
            fields = [each for each in endpoint.record.fields if plain(each) in wanted]
            exact = [each for each in fields if plain(each) == plain(name)]
            return tuple((exact or fields)[:1])
    return ()


def _told_by_entity(
    endpoint: Endpoint, known: Mapping[str, Endpoint], key: Sequence[str]
) -> Iterator[str]:
    """A doubt where the path for one record names the entity, and not the field."""
    paths = [each.path.rpartition("/{")[::2] for each in known.values()]
    names = [plain(name) for path, name in paths if path == endpoint.path.rstrip("/")]
    if key and names and plain(key[0]) not in names and not names[0].endswith(plain(key[0])):
        yield f"the key: {key[0]} is what {{{names[0]}}} of the path stands for, by its name"


def _cursor(
    endpoint: Endpoint, key: Sequence[str]
) -> tuple[Call | None, dict[str, str], tuple[str, ...]]:
    """The cursor that a parameter such as `updated_since` tells, the parameter, and doubts."""
    params = [
        (name, match, found)
        for name, found in endpoint.params.items()
        if (match := _SINCE.fullmatch(plain(name)))
    ]
    if len(params) != 1:
        return None, {}, ()
    name, match, given = params[0]
    word = match[1] or match[4]
    fields = [
        path
        for path, each in json_schema.leaves(endpoint.record)
        if (found := CHANGED.fullmatch(plain(path.rpartition(".")[2])))
        and found[1] == word
        and each.format == "date-time"
    ]
    if len(fields) != 1 or given.format not in ("date-time", "date") or not key:
        return None, {}, (f"a cursor: {name} asks for changes, but not in a way that is clear",)
    end = "after" if (match[2] or match[3]) in _LEAVES_OUT else "since"
    form = ":%Y-%m-%d" if given.format == "date" else ""
    return Call("Cursor", (fields[0],)), {name: f"{{{end}{form}}}"}, ()
