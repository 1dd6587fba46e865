"""The paging that an OpenAPI operation says, by its parameters, headers and response fields.

Names tell it; what they leave open is said, to be checked.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from commands.new_source.inference import NEXT_TOKENS, TOTAL_PAGES, plain
from commands.new_source.json_schema import Schema, leaves
from commands.new_source.literals import Call

MOST_PER_PAGE = 1000

# In lower case, letters and digits only: `page[size]` is pagesize, `$top` is top.
SIZES = frozenset({
    "limit", "perpage", "pagesize", "pagelimit", "size", "top", "maxresults", "itemsperpage",
})  # fmt: skip
OFFSETS = frozenset({"offset", "skip", "pageoffset", "start", "startindex", "startat"})
PAGES = frozenset({"page", "pagenumber", "pageno", "pagenum", "currentpage"})
TOKENS = frozenset({
    "cursor", "pagetoken", "nexttoken", "nextpagetoken", "nextcursor", "continuationtoken",
    "continuation", "continue", "marker", "after", "startingafter", "startcursor", "pagecursor",
    "pageafter",
})  # fmt: skip
NEXT_URLS = frozenset({
    "nexturl", "nextlink", "odatanextlink", "nextpageurl", "nextpagelink", "nexthref", "nexturi",
})  # fmt: skip
TOTALS = frozenset({"total", "totalcount", "totalresults", "totalitems", "totalrecords"})
MORES = frozenset({"hasmore", "hasnext", "hasnextpage", "more"})


@dataclass(frozen=True)
class Paging:
    """The paging function, the parameters of the first request, and what to check."""

    call: Call | None
    params: dict[str, Any] = field(default_factory=dict)
    to_check: tuple[str, ...] = ()


def paging(
    params: Mapping[str, Schema], has_link: bool, body: Schema, records: str, key: Sequence[str]
) -> Paging:
    """The paging of an operation; `records` is the path of its list, `key` that of its records."""
    size = _named(params, SIZES)
    first = {size: _size(params[size])} if size and _size(params[size]) else {}
    fields = {path: each for path, each in leaves(body) if path != records}
    found = _paging(params, has_link, fields, key)
    return Paging(found.call, first | found.params, found.to_check)


def _paging(
    params: Mapping[str, Schema], has_link: bool, fields: Mapping[str, Schema], key: Sequence[str]
) -> Paging:
    token, url = _named(params, TOKENS), _next_url(fields)
    more = _more(fields)
    if url and not (token and not _is_url(url, fields[url])):
        return Paging(Call("next_url", (url,), more))
    if has_link:
        return Paging(Call("next_link"))
    if token:
        return _by_token(token, fields, more, key)
    if (at := _named(params, OFFSETS)) is not None:
        return _by_offset(at, params[at], fields, more)
    if (number := _named(params, PAGES)) is not None and params[number].type in (
        "integer",
        "number",
    ):
        return _by_page(number, params[number], fields, more)
    return Paging(None, to_check=("the document names no paging: is one response everything?",))


def _by_token(
    param: str, fields: Mapping[str, Schema], more: dict[str, Any], key: Sequence[str]
) -> Paging:
    tokens = [path for path in fields if plain(path.rpartition(".")[2]) in NEXT_TOKENS]
    tokens = tokens or [path for path in fields if plain(path).endswith("next")]
    if not tokens and more and len(key) == 1:
        note = f"the paging: does {param} take the {key[0]} of the last record?"
        return Paging(Call("keyset", (key[0],), {"param": param, **more}), to_check=(note,))
    if len(tokens) != 1:
        named = ", ".join(tokens) or "none"
        return Paging(
            None,
            to_check=(f"the paging: {param} takes a token, and the fields that have it: {named}",),
        )
    return Paging(Call("next_token", (tokens[0],), {"param": param, **more}))


def _by_offset(
    param: str, given: Schema, fields: Mapping[str, Schema], more: dict[str, Any]
) -> Paging:
    first, to_check = _first(param, given, 0, plain(param) in {"offset", "skip", "pageoffset"})
    total = _only(fields, TOTALS, "integer")
    named: dict[str, Any] = {"first": first} if first else {}
    if total:
        named["total"] = total
        to_check += (f"the paging: reading ends when {total} records are read: is it the total?",)
    params = {param: first} if first else {}
    return Paging(Call("offset", (param,), {**named, **more}), params, to_check)


def _by_page(
    param: str, given: Schema, fields: Mapping[str, Schema], more: dict[str, Any]
) -> Paging:
    first, to_check = _first(param, given, 1, is_usual=False)
    pages = _only(fields, TOTAL_PAGES, "integer")
    named: dict[str, Any] = {"first": first} if first != 1 else {}
    if pages:
        named["total_pages"] = pages
        to_check += (f"the paging: reading ends after {pages} pages: is it their number?",)
    return Paging(Call("page_number", (param,), {**named, **more}), {param: first}, to_check)


def _first(param: str, given: Schema, usual: int, is_usual: bool) -> tuple[int, tuple[str, ...]]:
    """The number that the API counts from, and what to check about it."""
    for name in ("default", "minimum"):
        number = given.node.get(name)
        if type(number) is int and number in (0, 1):
            return number, ()
    note = f"the paging: does {param} count from {usual}? The document does not say it"
    return usual, () if is_usual else (note,)


def _size(given: Schema) -> int:
    """The largest page that the document allows; 0 if it names none."""
    largest = given.node.get("maximum")
    return min(largest, MOST_PER_PAGE) if type(largest) is int and largest > 0 else 0


def _next_url(fields: Mapping[str, Schema]) -> str | None:
    """The field with the address of the next page."""
    names = [
        path
        for path, each in fields.items()
        if each.type in ("string", "")
        and (plain(path.rpartition(".")[2]) in NEXT_URLS or _is_next(path))
    ]
    return names[0] if len(names) == 1 else None


def _is_next(path: str) -> bool:
    """True for `next`, `links.next` and `_links.next.href`."""
    return re.sub(r"\.(href|url)$", "", path).rpartition(".")[2] == "next"


def _is_url(path: str, given: Schema) -> bool:
    """True if it is an address, and not a token that is called `next`."""
    is_named = plain(path.rpartition(".")[2]) in NEXT_URLS or path.endswith((".href", ".url"))
    return is_named or given.format in ("uri", "url", "uri-reference") or "links" in path


def _more(fields: Mapping[str, Schema]) -> dict[str, Any]:
    found = _only(fields, MORES, "boolean")
    return {"more": found} if found else {}


def _only(fields: Mapping[str, Schema], names: frozenset[str], kind: str) -> str | None:
    """The only field of such a name and type."""
    found = [
        path
        for path, each in fields.items()
        if plain(path.rpartition(".")[2]) in names and each.type == kind
    ]
    return found[0] if len(found) == 1 else None


def _named(params: Mapping[str, Schema], names: frozenset[str]) -> str | None:
    """The only query parameter of such a name."""
    found = [name for name in params if plain(name) in names]
    return found[0] if len(found) == 1 else None
