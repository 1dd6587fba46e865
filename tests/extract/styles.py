"""Every paging style: its declaration, and an API that uses it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flows.extract import url_policy
from flows.extract.paginators import (
    Paging,
    keyset,
    next_link,
    next_token,
    next_url,
    offset,
    page_number,
    response_header,
    value_at,
)
from flows.extract.selectors import records_at
from flows.page import HttpRequest, Page
from flows.source import Resource
from tests.extract.reading import Api, asked_params
from tests.http_servers import Answer, Asked

Record = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """One response of an API: records up to `end` of `total`, in pages of `size`."""

    asked: Asked
    start: int
    end: int
    total: int
    size: int

    @property
    def is_last(self) -> bool:
        """Whether nothing follows."""
        return self.end >= self.total

    @property
    def link(self) -> str | None:
        """The next part's address, relative to the server."""
        return None if self.is_last else f"/orders?after={self.end}"

    @property
    def full_link(self) -> str | None:
        """The same with the server's name."""
        return self.link and f"http://{self.asked.headers['Host']}{self.link}"

    @property
    def token(self) -> str | None:
        """The token of the next part."""
        return None if self.is_last else f"t/{self.end}+?"


def _nothing(_: Part) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Style:
    """A style of paging.

    Attributes:
        start: the number of records before the requested ones, for a page size.
        says: members of the API's body besides the records.
        header: extra headers, in the same way.
        is_even: all pages but the last are of one size.
    """

    paging: Paging
    start: Callable[[Asked, int], int]
    says: Callable[[Part], Mapping[str, Any]] = _nothing
    header: Callable[[Part], Mapping[str, str]] = _nothing
    is_even: bool = False
    declared: Mapping[str, Any] = field(default_factory=dict)

    @property
    def resource(self) -> Resource:
        """The resource as a source declares it."""
        return Resource(
            "orders", "orders", records_at("items"), paging=self.paging, **self.declared
        )

    def api(self, records: Sequence[Record], sizes: Sequence[int]) -> Api:
        """An API of these records whose pages are of these sizes in turn, or of the first."""

        def answer(asked: Asked) -> Answer:
            start = self.start(asked, sizes[0])
            size = sizes[0] if self.is_even else sizes[start % len(sizes)]
            part = Part(asked, start, min(start + size, len(records)), len(records), size)
            body = {"items": records[start : part.end], **self.says(part)}
            headers = {"Content-Type": "application/json", **self.header(part)}
            return Answer(json.dumps(body).encode(), headers=headers)

        return answer


def _number(asked: Asked, name: str, default: int = 0) -> int:
    """A number in the query, or after the query in the JSON body."""
    members = json.loads(asked.body) if asked.body else asked_params(asked)
    return int(members.get(name, default))


def _after(asked: Asked, _: int) -> int:
    return _number(asked, "after")


def _behind_token(token: str | None) -> int:
    return int(token.removeprefix("t/").removesuffix("+?")) if token else 0


def _numbered(first: int) -> Callable[[Asked, int], int]:
    return lambda asked, size: (_number(asked, "page", first) - first) * size


def _as_header(part: Part) -> Mapping[str, str]:
    home = '</orders?after=0>; rel="first"; title="a, <b>; c=d"'
    return {"Link": home if part.is_last else f"{home}, <{part.link}>; title=x; rel=next"}


def _by_query(page: Page) -> str | None:
    following = value_at(page, "next")
    return f"?after={following}" if following else None


def _by_request(page: Page) -> HttpRequest | None:
    following = value_at(page, "next")
    if not following or page.request is None:
        return None
    return replace(page.request, url=url_policy.with_param(page.request.url, "after", following))


POST = {"method": "POST", "body": {"query": "{orders}", "after": None, "variables": {"first": 2}}}
PAGES = {"method": "POST", "body": {"limit": 2}}


def _graphql(part: Part) -> Mapping[str, Any]:
    return {"info": {"cursor": part.token or "the end", "more": not part.is_last}}


def _variable(asked: Asked, _: int) -> int:
    body = json.loads(asked.body)
    assert (body["query"], body["variables"]["first"]) == ("{orders}", 2)
    return _behind_token(body["variables"].get("after"))


def _total(part: Part) -> Mapping[str, Any]:
    return {"meta": {"total": part.total}}


def _pages(part: Part) -> Mapping[str, Any]:
    return {"pages": str(-(-part.total // part.size))}


def _more(part: Part) -> Mapping[str, Any]:
    return {"has_more": not part.is_last}


STYLES = {
    "next URL, relative": Style(next_url("next"), _after, lambda part: {"next": part.link}),
    "next URL, absolute": Style(next_url("next"), _after, lambda part: {"next": part.full_link}),
    "next URL, nested": Style(
        next_url("links.next"), _after, lambda part: {"links": {"next": part.link}}
    ),
    "next URL, a name with a dot": Style(
        next_url("@odata.nextLink"), _after, lambda part: {"@odata.nextLink": part.link or ""}
    ),
    "next URL with more": Style(
        next_url("next", more="has_more"),
        _after,
        lambda part: {"next": f"/orders?after={part.end}", **_more(part)},
    ),
    "next URL with more in a header": Style(
        next_url("next", more=response_header("x-more")),
        _after,
        lambda part: {"next": f"/orders?after={part.end}"},
        header=lambda part: {"X-More": str(not part.is_last).lower()},
    ),
    "link header": Style(next_link(), _after, header=_as_header),
    "token, body to param": Style(
        next_token("token", param="at"),
        lambda asked, _: _behind_token(asked_params(asked).get("at")),
        lambda part: {"token": part.token},
    ),
    "token, body to header": Style(
        next_token("meta.token", header="X-At"),
        lambda asked, _: _behind_token(asked.headers["X-At"]),
        lambda part: {"meta": {"token": part.token or ""}},
    ),
    "token, header to header": Style(
        next_token(response_header="x-next", header="X-At"),
        lambda asked, _: _behind_token(asked.headers["X-At"]),
        header=lambda part: {"X-Next": part.token} if part.token else {},
    ),
    "token, body to body, with more": Style(
        next_token("info.cursor", body_field="variables.after", more="info.more"),
        _variable,
        _graphql,
        declared=POST,
    ),
    "offset": Style(offset(), lambda asked, _: _number(asked, "offset")),
    "offset with a total": Style(
        offset("skip", total="meta.total"), lambda asked, _: _number(asked, "skip"), _total
    ),
    "offset from 1": Style(
        offset("startIndex", first=1),
        lambda asked, _: _number(asked, "startIndex", 1) - 1,
        declared={"params": {"startIndex": 1}},
    ),
    "offset from 1 with a total": Style(
        offset("startIndex", first=1, total="meta.total"),
        lambda asked, _: _number(asked, "startIndex", 1) - 1,
        _total,
    ),
    "offset with a total in a header": Style(
        offset(total=response_header("X-Total-Count")),
        lambda asked, _: _number(asked, "offset"),
        header=lambda part: {"X-Total-Count": str(part.total)},
    ),
    "offset that counts another list": Style(
        offset(counts="page.ids"),
        lambda asked, _: _number(asked, "offset"),
        lambda part: {"page": {"ids": list(range(part.start, part.end)) or None}},
    ),
    "offset with more": Style(
        offset(more="has_more"), lambda asked, _: _number(asked, "offset"), _more
    ),
    "offset in the body": Style(
        offset(body_field="offset"), lambda asked, _: _number(asked, "offset"), declared=PAGES
    ),
    "page number": Style(page_number(), _numbered(1), is_even=True),
    "page number from 0": Style(page_number(first=0), _numbered(0), is_even=True),
    "page number with their count": Style(
        page_number(total_pages="pages"), _numbered(1), _pages, is_even=True
    ),
    "page number with their count in a header": Style(
        page_number(total_pages=response_header("X-WP-TotalPages")),
        _numbered(1),
        header=lambda part: {"X-WP-TotalPages": str(-(-part.total // part.size))},
        is_even=True,
    ),
    "page number from 0 with their count": Style(
        page_number(first=0, total_pages="pages"), _numbered(0), _pages, is_even=True
    ),
    "page number with more": Style(page_number(more="has_more"), _numbered(1), _more, is_even=True),
    "page number in the body": Style(
        page_number(body_field="page"), _numbered(1), is_even=True, declared=PAGES
    ),
    "keyset": Style(keyset("id", param="after"), _after),
    "keyset with more": Style(keyset("id", param="after", more="has_more"), _after, _more),
    "keyset in the body": Style(keyset("id", body_field="after"), _after, declared=PAGES),
    "function of a URL": Style(_by_query, _after, lambda part: {"next": part.link and part.end}),
    "function of a request": Style(
        _by_request, _after, lambda part: {"next": part.link and str(part.end)}
    ),
}
