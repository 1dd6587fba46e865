"""The first request of a window, made of what a resource declares."""

import json
import string
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from flows.cursors import PLACEHOLDER
from flows.errors import (
    ConfigurationError,
)
from flows.extract import placeholders
from flows.extract.placeholders import fill
from flows.page import HttpRequest
from flows.query_params import form_pairs, query_pairs
from flows.source import Partition, Resource, Source, Window

# As segments of a path, these point to another place.
NO_SEGMENTS = frozenset({"", ".", ".."})


def first_request(
    source: Source, resource: Resource, partition: Partition, window: Window
) -> HttpRequest:
    """The first request of a window. Spaces become %20, since some servers don't read + as a space.

    Raises:
        ConfigurationError: the partition or the window lacks a value, a query parameter has a type
            that can't be sent, or the body is not JSON.
    """
    body = _resolve(resource, resource.body, partition, window)
    if body is not None:
        _check_body(resource, body)
    if resource.sends == "form":
        form_pairs(resource.name, body)
    headers = _resolve(resource, resource.headers, partition, window)
    headers = {name: str(value) for name, value in headers.items()}
    is_link = resource.token_cursor is not None and resource.token_cursor.is_link
    link = window.token if is_link else None
    url = link or _first_url(source, resource, partition, window)
    hides_answer = bool(resource.personal)
    return HttpRequest(url, resource.method, headers, body, hides_answer, resource.sends)


def _check_body(resource: Resource, body: Any) -> None:
    try:
        json.dumps(body, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{resource.name}: its body is not JSON: {error}.") from error


def _first_url(source: Source, resource: Resource, partition: Partition, window: Window) -> str:
    url = below(source.base_url, _path(resource, partition.values, window))
    params = query_pairs(resource.name, _resolve(resource, resource.params, partition, window))
    query = urlencode(params, quote_via=quote)
    mark = "&" if "?" in url else "?"
    return f"{url}{mark}{query}" if query else url


def _resolve(resource: Resource, declared: Any, partition: Partition, window: Window) -> Any:
    if callable(declared):
        return declared(partition, window)
    return fill(declared, resource, window) if resource.cursor else declared


def below(base_url: str, path: str) -> str:
    """The address of a path below the base URL; of an empty one, the base URL itself."""
    return f"{base_url.rstrip('/')}/{path.lstrip('/')}" if path else base_url


def _path(resource: Resource, values: Mapping[str, Any], window: Window) -> str:
    """The path with the partition's values and the window's ends in it.

    Each is percent-encoded as one segment.
    """
    filled = []
    try:
        for literal, name, form, conversion in string.Formatter().parse(resource.path):
            filled.append(literal)
            if name is not None:
                text = (
                    _as_text(values[name], form or "", conversion)
                    if name in values
                    else _end(resource, window, name, form or "")
                )
                _check_segment(resource, name, text)
                filled.append(quote(text, safe=""))
    except (LookupError, ValueError) as error:
        raise ConfigurationError(
            f"{resource.name}: the path {resource.path!r} needs {error}, which its partitions "
            f"don't have. They have: {', '.join(values) or 'no values'}."
        ) from error
    return "".join(filled)


def _end(resource: Resource, window: Window, name: str, form: str) -> str:
    """An end of the window."""
    if not PLACEHOLDER.fullmatch(f"{{{name}}}"):
        raise KeyError(name)
    found = placeholders.end(resource, window, name, form)
    if found is None:
        raise ConfigurationError(
            f"{resource.name}: the path {resource.path!r} names the window's {name!r}, but this "
            f"window has none. {_remedy(resource, name)}"
        )
    return str(found)


def _remedy(resource: Resource, name: str) -> str:
    """How each window of the resource gets an end of that name."""
    given = "`start`" if name in ("since", "after") else "`start` and a `step`"
    owner = "Give the resource's cursor" if resource.cursor else "Declare a cursor with"
    return f"{owner} a {given}."


def _as_text(value: Any, form: str, conversion: str | None) -> str:
    """The value as `str.format` writes it, but a time without a format as ISO 8601."""
    if isinstance(value, datetime) and not form and not conversion:
        return value.isoformat()
    return format(string.Formatter().convert_field(value, conversion or None), form)


def _check_segment(resource: Resource, name: str, text: str) -> None:
    if text in NO_SEGMENTS:
        raise ConfigurationError(
            f"{resource.name}: the path {resource.path!r} can't be filled with {text!r} as "
            f"{name!r}: it would lead somewhere else. Remove that partition."
        )
