"""A Stripe of customers, invoices and events, as its API describes them, in memory."""

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.http_servers import Answer, Asked

KEY = "rk_live_51AAAAaaaa"
FIRST = 1_767_225_600  # 2026-01-01
STEP_SECONDS = 6 * 3600
LARGEST_PAGE = 10
_LINES = re.compile(r"/v1/invoices/(\w+)/lines")
KNOWN = {"limit", "starting_after", "created[gte]", "expand[]"}

Record = dict[str, Any]


class Stripe:
    """Lists have the newest objects first.

    Attributes:
        before: called with each request that is logged in; may return another answer.
        lines: of each invoice; it has the first ten itself.
    """

    def __init__(self) -> None:
        self.before: Callable[[Asked], Answer | None] = lambda asked: None
        self.lists: dict[str, list[Record]] = {"customers": [], "invoices": [], "events": []}
        self.lines: dict[str, list[Record]] = {}
        for number in range(24):
            self.add_customer(number)
        for number in range(12):
            self.add_invoice(number, lines=number * 3)

    def _add(self, name: str, record: Record, at: int) -> None:
        self.lists[name].insert(
            0, {"object": name[:-1], "created": FIRST + at * STEP_SECONDS, **record}
        )
        if name != "events":
            event = {"id": f"evt_{name}_{at}", "type": f"{name[:-1]}.created"}
            self._add("events", {**event, "data": {"object": record}}, at)

    def add_customer(self, number: int) -> None:
        self._add("customers", {"id": f"cus_{number}", "email": f"ä{number}@example.com"}, number)

    def add_invoice(self, number: int, lines: int) -> None:
        key = f"in_{number}"
        self.lines[key] = [
            {"id": f"il_{number}_{n}", "object": "line_item", "invoice": key, "amount": n}
            for n in range(lines)
        ]
        self._add("invoices", {"id": key, "customer": f"cus_{number}", "status": "open"}, number)

    def pay(self, number: int) -> None:
        """Change an invoice; `created` stays."""
        [invoice] = [each for each in self.lists["invoices"] if each["id"] == f"in_{number}"]
        invoice["status"] = "paid"

    def shown(self, name: str, record: Record, expanded: bool) -> Record:
        """An object as the API sends it."""
        if name != "invoices":
            return record
        lines = self.lines[record["id"]]
        path = f"/v1/invoices/{record['id']}/lines"
        customer: Any = record["customer"]
        if expanded:
            [customer] = [each for each in self.lists["customers"] if each["id"] == customer]
        listed = {"object": "list", "data": lines[:10], "has_more": len(lines) > 10, "url": path}
        return {**record, "customer": customer, "lines": listed}

    def __call__(self, asked: Asked) -> Answer:
        if asked.headers["Authorization"] != f"Bearer {KEY}":
            return _refusal(401, "Invalid API Key provided: rk_live_********")
        if other := self.before(asked):
            return other
        address = urlsplit(asked)
        query = parse_qs(address.query)
        if unknown := {*query} - KNOWN:
            return _refusal(400, f"Received unknown parameter: {unknown.pop()}")
        name = address.path.removeprefix("/v1/")
        found = _LINES.fullmatch(address.path)
        rows = self.lines.get(found[1]) if found else self.lists.get(name)
        if rows is None:
            return _refusal(404, f"Unrecognized request URL (GET: {address.path}).")
        is_expanded = query.get("expand[]") == ["data.customer"]
        since = int(query.get("created[gte]", ["0"])[0])
        chosen = [self.shown(name, each, is_expanded) for each in rows]
        chosen = [each for each in chosen if each.get("created", since) >= since]
        return _page(address.path, query, chosen)


def _page(path: str, query: dict[str, list[str]], rows: list[Record]) -> Answer:
    limit = int(query.get("limit", ["10"])[0])
    if not 1 <= limit <= 100:
        return _refusal(400, "This value must be less than or equal to 100.")
    keys = [each["id"] for each in rows]
    after = query.get("starting_after", [""])[0]
    if after and after not in keys:
        return _refusal(400, f"No such object: '{after}'")
    start = keys.index(after) + 1 if after else 0
    end = start + min(limit, LARGEST_PAGE)
    document = {
        "object": "list",
        "url": path,
        "has_more": end < len(rows),
        "data": rows[start:end],
    }
    return Answer(json.dumps(document).encode())


def _refusal(status: int, message: str, **more: str) -> Answer:
    error = {"type": "invalid_request_error", "message": message, **more}
    return Answer(json.dumps({"error": error}).encode(), status)


def limited() -> Answer:
    """It does not say how long to wait."""
    return _refusal(429, "Too many requests hit the API too quickly.", code="rate_limit")
