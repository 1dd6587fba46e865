"""Paging styles: each one a function from a request and a listing to an answer."""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from tests.fault_api.catalogue import stamps
from tests.fault_api.catalogue.items import written
from tests.fault_api.catalogue.listing import Listing
from tests.fault_api.exchange import Answer, Ask, AskError, as_json

Style = Callable[[Ask, Listing], Answer]

PAGE_SIZE = 10
EVER, NEVER = "1000-01-01", "9999-12-31"
NEXT_TOKEN_HEADER, TOKEN_HEADER = "X-Next-Token", "X-Page-Token"


def answer(name: str, ask: Ask, listing: Listing) -> Answer:
    """A page in the style of that name; `since` and `until` narrow every one of them.

    Raises:
        AskError: when there is no such style, or its parameters can't be understood.
    """
    if name not in STYLES:
        raise AskError(f"There is no style {name!r}; there are {', '.join(STYLES)}.", 404)
    if not ask.arguments.keys().isdisjoint({"since", "until", "through"}):
        listing = listing.between(_moment(ask, "since", EVER), _end(ask))
    return STYLES[name](ask, listing)


def next_url(ask: Ask, listing: Listing) -> Answer:
    """The whole URL of the next page in the body."""
    return _linked(ask, listing, ask.base)


def next_path(ask: Ask, listing: Listing) -> Answer:
    """The URL of the next page in the body, without scheme and host."""
    return _linked(ask, listing, "")


def _linked(ask: Ask, listing: Listing, base: str) -> Answer:
    """A link never carries a key: who follows it shows its own again.

    With `changes`, the last page has a token for what changes later, to be sent as `sync`.
    """
    is_synced = "changes" in ask.arguments
    known = _start(ask.arguments.get("sync"))
    if is_synced and known:
        rows = tuple(row for row in listing.rows if row["id"] > known)
        listing = replace(listing, rows=rows)
    part = listing.part(ask.whole("position", 0), _size(ask))
    link = None
    if part.next_start is not None:
        link = base + ask.link(position=part.next_start, api_key=None)
    ends = is_synced and link is None
    newest = max([known, *(row["id"] for row in listing.rows)])
    token = {"sync": _token(newest)} if ends else {}
    return as_json({"items": part.rows, "next": listing.next_link or link, **token})


def flagged_url(ask: Ask, listing: Listing) -> Answer:
    """There is always a URL of a next page; `more` and `is_last` say whether there is one."""
    start, size = ask.whole("position", 0), _size(ask)
    part = listing.part(start, size)
    following = start + size if part.next_start is None else part.next_start
    link = ask.base + ask.link(position=following)
    is_last = part.next_start is None
    return as_json({"items": part.rows, "next": link, "more": not is_last, "is_last": is_last})


def link_header(ask: Ask, listing: Listing) -> Answer:
    """A bare list, and `Link` (RFC 8288) with other relations beside the next."""
    start, size = ask.whole("position", 0), _size(ask)
    part = listing.part(start, size)
    links = [f'<{ask.base}/>; title="next, last"; rel="help"', _relation(ask, "first", 0)]
    if start:
        links.append(_relation(ask, "prev", max(0, start - size)))
    if listing.next_link:
        links.append(f'<{listing.next_link}>; rel="next"')
    elif part.next_start is not None:
        links.append(_relation(ask, "next", part.next_start))
    links.append(_relation(ask, "last", max(0, part.total - 1) // size * size))
    return as_json(part.rows, headers={"Link": ", ".join(links)})


def _relation(ask: Ask, name: str, start: int) -> str:
    return f'<{ask.base}{ask.link(position=start)}>; rel="{name}"'


def token_body(ask: Ask, listing: Listing) -> Answer:
    """A token in the body, sent back as `token`."""
    part = listing.part(_start(ask.arguments.get("token")), _size(ask))
    return as_json({"items": part.rows, "next_token": _token(part.next_start)})


def token_header(ask: Ask, listing: Listing) -> Answer:
    """A token in a response header, sent back in a request header."""
    part = listing.part(_start(ask.headers.get(TOKEN_HEADER.lower())), _size(ask))
    token = _token(part.next_start)
    return as_json({"items": part.rows}, headers={NEXT_TOKEN_HEADER: token} if token else {})


def offset(ask: Ask, listing: Listing) -> Answer:
    """`offset` and `limit`, and how many rows there are in all."""
    part = listing.counted_part(ask.whole("offset", 0), _size(ask))
    return as_json({"items": part.rows, "total": part.total})


def offset_from_1(ask: Ask, listing: Listing) -> Answer:
    """`startIndex` counts from 1, as in SCIM (RFC 7644, 3.4.2.4)."""
    part = listing.counted_part(ask.whole("startIndex", 1, least=1) - 1, _size(ask, "count"))
    return as_json({"items": part.rows, "totalResults": part.total})


def page_headers(ask: Ask, listing: Listing) -> Answer:
    """A bare list, and the totals in headers, as WordPress has them; behind the last page a 400."""
    size, number = _size(ask, "per_page"), ask.whole("page", 1, least=1)
    part = listing.counted_part((number - 1) * size, size)
    if number > 1 and not part.rows:
        raise AskError("invalid_page_number: larger than the number of pages available.")
    totals = {"X-WP-Total": str(part.total), "X-WP-TotalPages": str(-(-part.total // size))}
    return as_json(part.rows, headers=totals)


def page(ask: Ask, listing: Listing) -> Answer:
    """`page` counts from 1; `per_page` is its size."""
    size = _size(ask, "per_page")
    part = listing.counted_part((ask.whole("page", 1, least=1) - 1) * size, size)
    has_more = part.next_start is not None
    return as_json(
        {"items": part.rows, "total_pages": -(-part.total // size), "has_more": has_more}
    )


def keyset(ask: Ask, listing: Listing) -> Answer:
    """The rows after the one whose id is `after_id`."""
    is_first = ask.arguments.get("after_id") is None
    start = 0 if is_first else listing.position_after(ask.whole("after_id", 0, least=-(10**9)))
    part = listing.counted_part(start, _size(ask))
    return as_json({"items": part.rows, "has_more": part.next_start is not None})


def windows(ask: Ask, listing: Listing) -> Answer:
    """All rows of the time from `since` to before `until`, or to `through`; both are needed.

    With `form`, requests and rows have times in another form (`stamps`).
    """
    for names in ({"since"}, {"until", "through"}):
        if names.isdisjoint(ask.arguments):
            raise AskError(f"{max(names)} is missing; expected a date or a time.")
    form = ask.arguments.get("form")
    return as_json({"items": [stamps.stamped(row, form) if form else row for row in listing.rows]})


def graphql(ask: Ask, listing: Listing) -> Answer:
    """A POST of `query` and `variables` (`first`, `after`); errors have status 200, as usual."""
    if ask.method != "POST":
        raise AskError("GraphQL is asked with POST.", 405, {"Allow": "POST"})
    if not re.search(r"\bitems\b", str(ask.arguments.get("query"))):
        return as_json({"errors": [{"message": "The query asks for no items."}], "data": None})
    variables = ask.arguments.get("variables") or {}
    if not isinstance(variables, dict):
        raise AskError("variables is no JSON object.")
    part = listing.part(_start(variables.get("after")), int(variables.get("first") or PAGE_SIZE))
    after = {"hasNextPage": part.next_start is not None, "endCursor": _token(part.next_start)}
    items = {"nodes": part.rows, "pageInfo": after, "totalCount": part.total}
    return as_json({"data": {"items": items}})


def none(ask: Ask, listing: Listing) -> Answer:
    """All rows at once."""
    return as_json({"items": listing.rows})


STYLES: Mapping[str, Style] = {
    style.__name__: style
    for style in (
        next_url,
        next_path,
        flagged_url,
        link_header,
        token_body,
        token_header,
        offset,
        offset_from_1,
        page,
        page_headers,
        keyset,
        windows,
        graphql,
        none,
    )
}


def _size(ask: Ask, name: str = "limit") -> int:
    return ask.whole(name, PAGE_SIZE, least=1)


def _token(start: int | None) -> str | None:
    """A token that says nothing to the client, and ends in what a URL must escape."""
    return None if start is None else base64.b64encode(f"position:{start}".encode()).decode()


def _start(token: object) -> int:
    if token is None or token == "":
        return 0
    try:
        return int(base64.b64decode(str(token), validate=True).removeprefix(b"position:"))
    except (binascii.Error, ValueError) as error:
        raise AskError(f"{token!r} is no token of a page.") from error


def _end(ask: Ask) -> str:
    """Before which moment the rows are; `through` is the last one that is wanted."""
    if "through" not in ask.arguments:
        return _moment(ask, "until", NEVER)
    return _moment(ask, "through", NEVER) + "~"


def _moment(ask: Ask, name: str, default: str) -> str:
    text = str(ask.arguments.get(name) or default)
    try:
        form = ask.arguments.get("form")
        moment = (
            stamps.moment(text, form)
            if form and name in ask.arguments
            else datetime.fromisoformat(text.replace("Z", "+00:00"))
        )
    except ValueError as error:
        raise AskError(f"{name} is {text!r}; expected a date or a time.") from error
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC)
    return written(moment)
