"""The shop of docs/your-first-source.md, in memory: orders and their lines."""

import json
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.http_servers import Answer, Asked

TOKEN = "sample-bearer-token"  # noqa: S105 (made up)
LARGEST_PAGE = 5
_PATH = re.compile(r"/v2/orders(?:/(A-\d+)/lines)?")

Record = dict[str, Any]


class Shop:
    """Twelve orders, the oldest change first; each has up to six lines."""

    def __init__(self) -> None:
        self.orders = [_order(number) for number in range(1, 13)]
        self.lines = {
            order["id"]: [_line(number) for number in range(1, 1 + at % 7)]
            for at, order in enumerate(self.orders)
        }

    def add_line(self, order_id: str, at: str) -> None:
        """A new line changes its order."""
        lines = self.lines[order_id]
        lines.append(_line(len(lines) + 1))
        [order] = [each for each in self.orders if each["id"] == order_id]
        order["updated_at"] = at

    def __call__(self, asked: Asked) -> Answer:
        if asked.headers["Authorization"] != f"Bearer {TOKEN}":
            return _said({"error": "no such token"}, 401)
        address = urlsplit(asked)
        found = _PATH.fullmatch(address.path)
        query = {name: value for name, [value] in parse_qs(address.query).items()}
        if found and found[1] in self.lines:
            return _page("lines", self.lines[found[1]], query)
        if found and not found[1]:
            since = query.get("updated_from", "")
            rows = [each for each in self.orders if each["updated_at"] >= since]
            return _page("orders", sorted(rows, key=lambda each: each["updated_at"]), query)
        return _said({"error": "not found"}, 404)


def _order(number: int) -> Record:
    return {
        "id": f"A-{number}",
        "status": "paid",
        "total": number + 0.5,
        "email": f"person-{number % 5}@example.com",
        "customer": {"name": f"Person {number}", "phone": f"+49 30 55512{number:02}"},
        "updated_at": f"2026-01-{number:02}T12:00:00Z",
    }


def _line(number: int) -> Record:
    return {"number": number, "sku": f"lamp-{number}", "quantity": 2}


def _page(name: str, rows: list[Record], query: dict[str, str]) -> Answer:
    size = min(int(query.get("page_size", LARGEST_PAGE)), LARGEST_PAGE)
    start = int(query.get("page_token", "t0")[1:])
    more = {"next_page_token": f"t{start + size}"} if start + size < len(rows) else {}
    return _said({name: rows[start : start + size], **more})


def _said(document: Record, status: int = 200) -> Answer:
    return Answer(json.dumps(document).encode(), status)
