"""Refuses requests that no API accepts, or that lack what they name."""

import codecs
import re
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from flows import cursor_formats
from flows.cursors import ENDS, PLACEHOLDER
from flows.errors import ConfigurationError
from flows.limits import check_least
from flows.partitions import RowsOf
from flows.query_params import form_pairs, query_pairs

if TYPE_CHECKING:
    from flows.source import Resource


# Python lists these as text encodings, but they escape characters instead of encoding them.
NOT_FOR_TEXT = frozenset({"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape"})


def check_requests(resource: "Resource") -> None:
    """Refuse what a resource declares of its requests, and of the pages that answer them.

    Raises:
        ConfigurationError: with what to write instead.
    """
    _check_token(resource)
    if not callable(resource.params):
        query_pairs(resource.name, resource.params)
    _check_placeholders(resource)
    _check_encoding(resource.name, resource.encoding)
    _check_pages(resource)
    _check_body(resource)
    _check_counts(resource)
    _check_job(resource)


def _check_body(resource: "Resource") -> None:
    """Refuse a body that a GET can't have or a form can't hold."""
    if resource.body is not None and resource.method == "GET":
        raise ConfigurationError(f"{resource.name}: a GET has no body. Declare method='POST'.")
    if resource.sends == "form" and resource.body is None:
        raise ConfigurationError(
            f"{resource.name}: it sends a form, but has no body. Declare body={{…}} with its "
            "fields, and method='POST'."
        )
    if resource.sends == "form" and not callable(resource.body):
        form_pairs(resource.name, resource.body)


def _check_job(resource: "Resource") -> None:
    """Refuse to read a part of a job's result: a load could not go on between its pages."""
    if resource.job is not None and resource.max_pages:
        raise ConfigurationError(
            f"{resource.name}: the result of a job is stored as a whole, so it has no max_pages. "
            "Remove it."
        )


def _check_counts(resource: "Resource") -> None:
    """Refuse paging that counts records where the API counts what they are in."""
    is_counted = getattr(resource.paging, "counts", None) == ""
    if is_counted and getattr(resource.records, "changes_count", False):
        raise ConfigurationError(
            f"{resource.name}: its paging counts records, but there may be several or none in an "
            "element of the list that the API counts. Name that list, e.g. "
            'offset(counts="data.orders").'
        )


def _ends_in_path(resource: "Resource") -> list[re.Match[str]]:
    """The placeholders of the path that no value of the partitions fills."""
    parents = resource.partitions
    values = [parents.columns] if isinstance(parents, RowsOf) else [each.values for each in parents]
    found = PLACEHOLDER.finditer(resource.path)
    return [each for each in found if not any(each[1] in names for names in values)]


def _check_token(resource: "Resource") -> None:
    """Refuse what makes no sense for changes since a token, and a token that is never sent."""
    cursor = resource.token_cursor
    if cursor is None:
        return
    owner = f"{resource.name}: its cursor is a token"
    if resource.writes == "replace":
        raise ConfigurationError(
            f"{owner}, with which the API sends only changes, and `replace` would delete all other "
            "rows. Declare a key and no disposition, or remove the cursor."
        )
    if resource.max_pages is not None:
        raise ConfigurationError(
            f"{owner}, which is kept once everything is read: with max_pages, it never is. Remove "
            "max_pages."
        )
    if any(found[1] == "token" for found in _ends_in_path(resource)):
        raise ConfigurationError(
            f"{owner}, and its path names {{token}}, which the first load does not have. Name it "
            "in params, headers or body, or set is_link=True if the token is an address."
        )
    declared = (resource.params, resource.headers, resource.body)
    is_named = any(callable(each) or "{token" in repr(each) for each in declared)
    if not (cursor.is_link or is_named):
        raise ConfigurationError(
            f"{owner} that no request names. Write e.g. params={{'syncToken': '{{token}}'}}, or "
            "is_link=True if it is an address."
        )


def _check_placeholders(resource: "Resource") -> None:
    """Refuse ends of a window that the cursor will never have, and unknown formats of times."""
    params, body = (
        {} if callable(declared) else declared for declared in (resource.params, resource.body)
    )
    places = {
        "path": _ends_in_path(resource) if resource.cursor else [],
        "params": PLACEHOLDER.finditer(repr(params)),
        "headers": PLACEHOLDER.finditer(repr(resource.headers)),
        "body": _ends_in_body(body, _ends_of(resource)),
    }
    for place, ends in places.items():
        for found in ends:
            _check_end(resource, place, found)


def _check_end(resource: "Resource", place: str, found: re.Match[str]) -> None:
    name, form = found.groups()
    known = _ends_of(resource)
    escape = " A body that a function returns is sent as it is." if place == "body" else ""
    if resource.cursor is None:
        raise ConfigurationError(
            f"{resource.name}: it names {found[0]} in its {place}, but it has no cursor. Declare "
            f"one.{escape}"
        )
    if name not in known:
        raise ConfigurationError(
            f"{resource.name}: it names {found[0]} in its {place}, but its "
            f"{type(resource.cursor).__name__} only has "
            f"{', '.join(f'{{{each}}}' for each in known)}.{escape}"
        )
    if resource.time_cursor is not None and form:
        cursor_formats.check(f"{resource.name}: {found[0]}", form)


def _ends_of(resource: "Resource") -> tuple[str, ...]:
    """The placeholders that the resource's cursor fills."""
    return ENDS[type(resource.cursor)] if resource.cursor else ()


def _ends_in_body(body: Any, known: Collection[str]) -> Iterator[re.Match[str]]:
    """The placeholders of a body's texts.

    Those that the cursor does not fill are left out if they may be something else: GraphQL asks for
    an object's fields with `me {token}`.
    """
    if isinstance(body, str):
        for found in PLACEHOLDER.finditer(body):
            before, after = body[: found.start()][-1:], body[found.end() :][:1]
            is_value = before == after and before in ("", "'", '"')
            if found[1] in known or is_value:
                yield found
    elif isinstance(body, Mapping):
        yield from _ends_in_body([*body.values()], known)
    elif isinstance(body, list | tuple):
        for each in body:
            yield from _ends_in_body(each, known)


def _check_pages(resource: "Resource") -> None:
    check_least(
        resource.name, 1, max_pages=resource.max_pages, max_empty_pages=resource.max_empty_pages
    )
    _check_reads_on(resource)


def _check_reads_on(resource: "Resource") -> None:
    """Refuse to read on by a number (`by_number`), often a day later: the records have shifted."""
    reads_on = resource.cursor and resource.max_pages is not None and resource.writes != "replace"
    if reads_on and getattr(resource.paging, "by_number", False):
        raise ConfigurationError(
            f"{resource.name}: with a cursor, a load reads on where max_pages ended the last one. "
            "By offset or page number it would skip records if others were changed or deleted "
            "since then. Remove max_pages, or page by keyset, a link or a token."
        )


def _check_encoding(resource: str, encoding: str | None) -> None:
    if encoding is None:
        return
    try:
        "".encode(encoding)
        is_known = codecs.lookup(encoding).name not in NOT_FOR_TEXT
    except (LookupError, ValueError):
        is_known = False
    if not is_known:
        raise ConfigurationError(
            f"{resource}: Python doesn't know the encoding {encoding!r}. Choose one of "
            "https://docs.python.org/3/library/codecs.html#standard-encodings, e.g. cp1252."
        )
