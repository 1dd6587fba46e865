"""A Zendesk of tickets, comments and users, as its API describes them, in memory."""

import json
import re
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.http_servers import Answer, Asked

TOKEN = "6wiIBWbGkBMo1mRDMuVwkw1EPsNkeUj95PIz2akv"  # noqa: S105 (made up)
LOGIN = "Basic " + b64encode(f"agent@example.com/token:{TOKEN}".encode()).decode()
FIRST = 1_767_225_600  # 2026-01-01
LARGEST_PAGE = 10
_EXPORT = re.compile(r"/api/v2/incremental/(tickets|users)/cursor\.json")
_COMMENTS = re.compile(r"/api/v2/tickets/(\d+)/comments\.json")

Record = dict[str, Any]


class Zendesk:
    """Exports have the objects that changed longest ago first.

    Attributes:
        before: called with each request that is logged in; may return another answer.
        erased: the tickets that are gone for good.
    """

    def __init__(self) -> None:
        self.before: Callable[[Asked], Answer | None] = lambda asked: None
        self.erased: set[int] = set()
        self.comments: dict[int, list[Record]] = {}
        self._changes = 0
        self.objects: dict[str, dict[int, Record]] = {"tickets": {}, "users": {}}
        for number in range(1, 26):
            self.change("users", number, name=f"Jürgen {number}", active=True)
            self.change("tickets", number, subject=f"Ticket {number}", status="open")
            self.comments[number] = [
                {"id": number * 1000 + n, "body": f"{n}", "public": True}
                for n in range(number % 5 * 6)
            ]

    def change(self, kind: str, number: int, **fields: Any) -> None:
        """Create or change an object."""
        self._changes += 1
        old = self.objects[kind].get(number, {"id": number})
        at = {"generated_timestamp": FIRST + self._changes}
        self.objects[kind][number] = {**old, **fields, **at}

    def comment(self, ticket: int) -> None:
        """Add a comment, which changes its ticket."""
        key = ticket * 1000 + len(self.comments[ticket])
        self.comments[ticket].append({"id": key, "body": "late", "public": False})
        self.change("tickets", ticket, status="pending")

    def __call__(self, asked: Asked) -> Answer:
        if asked.headers["Authorization"] != LOGIN:
            return _as_json({"error": "Couldn't authenticate you"}, 401)
        if other := self.before(asked):
            return other
        address = urlsplit(asked)
        query = {name: value for name, [value] in parse_qs(address.query).items()}
        url = f"http://{asked.headers['Host']}{address.path}"
        if found := _EXPORT.fullmatch(address.path):
            return self._export(url, found[1], query)
        found = _COMMENTS.fullmatch(address.path)
        if not found or int(found[1]) in self.erased:
            return _as_json({"error": "RecordNotFound", "description": "Not found"}, 404)
        return _comments(url, self.comments[int(found[1])], query)

    def _export(self, url: str, name: str, query: dict[str, str]) -> Answer:
        if "cursor" not in query and "start_time" not in query:
            return _as_json({"error": "InvalidValue", "description": "start_time"}, 400)
        after = _position(query["cursor"]) if "cursor" in query else int(query["start_time"]) - 1
        size = min(int(query.get("per_page", 1000)), LARGEST_PAGE)
        rows = sorted(self.objects[name].values(), key=lambda each: each["generated_timestamp"])
        later = [each for each in rows if each["generated_timestamp"] > after]
        page = later[:size]
        cursor = _cursor(page[-1]["generated_timestamp"] if page else after)
        follows = {"cursor": cursor, "per_page": query.get("per_page", 1000)}
        return _as_json(
            {
                name: page,
                "after_url": f"{url}?{urlencode(follows)}",
                "after_cursor": cursor,
                "before_url": None,
                "before_cursor": None,
                "end_of_stream": len(later) <= size,
            }
        )


def _comments(url: str, rows: list[Record], query: dict[str, str]) -> Answer:
    size = min(int(query["page[size]"]), LARGEST_PAGE)
    start = _position(query["page[after]"]) if "page[after]" in query else 0
    has_more = start + size < len(rows)
    after = {"page[after]": _cursor(start + size), "page[size]": query["page[size]"]}
    return _as_json(
        {
            "comments": rows[start : start + size],
            "meta": {"has_more": has_more, "after_cursor": after["page[after]"]},
            "links": {"next": f"{url}?{urlencode(after)}" if has_more else None},
        }
    )


def _cursor(position: int) -> str:
    return urlsafe_b64encode(f"at {position}".encode()).decode()


def _position(cursor: str) -> int:
    return int(urlsafe_b64decode(cursor).decode().removeprefix("at "))


def _as_json(document: Record, status: int = 200) -> Answer:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    return Answer(json.dumps(document).encode(), status, headers)


def limited(seconds: int) -> Answer:
    """More exports than ten a minute."""
    answer = Answer(b"Number of allowed incremental ticket export API requests per minute exceeded")
    headers = {"Retry-After": str(seconds), "Content-Type": "text/plain"}
    return Answer(answer.body, 429, headers)
