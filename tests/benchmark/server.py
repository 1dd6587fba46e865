"""The API of the benchmark: pages rendered once and served from memory, in a process of its own.

`/first/1` and `/changed/1` begin the real flights, `/generated/<pages>/1` that many pages made on
the fly from one real page, `/shape/<name>` is a page of an odd shape,
`/children/<parents>/<milliseconds>/parents/1` begins parents with children, each answer so late,
`/counted/rows` begins pages that state their number,
`/` says what there is.
"""

import argparse
import json
import re
from collections.abc import Iterable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from typing import Any

from tests.benchmark import children, counted, flights
from tests.benchmark.shapes import SHAPES

PAGE_NUMBER = b"@"


class Pages:
    """All bodies by path; `base_url` begins the addresses of next pages."""

    def __init__(self, base_url: str, limit: int | None) -> None:
        self._base_url = base_url
        records = list(flights.records(limit))
        self._bodies = {
            "first": self._render("first", records),
            "changed": self._render("changed", map(flights.changed, records)),
        }
        self._rows = len(records)
        self._template = template(records[: flights.ROWS_A_PAGE])

    def answer(self, path: str) -> bytes | None:
        """The body at a path; None where there is none."""
        match path.strip("/").split("/"):
            case ["generated", pages, number]:
                return self._generate(int(pages), int(number))
            case ["counted", query]:
                number = int(query.partition("page=")[2] or 1)
                rows = self._template.replace(PAGE_NUMBER, str(number).encode())
                return counted.answer(number, rows)
            case ["shape", name] if name in SHAPES:
                return SHAPES[name].body()
            case ["children", parents, latency_ms, *rest]:
                return children.answer(self._base_url, int(parents), int(latency_ms), rest)
            case [name, number] if name in self._bodies:
                bodies = self._bodies[name]
                return bodies[int(number) - 1] if 0 < int(number) <= len(bodies) else None
            case [""]:
                return dumped(self._contents())
        return None

    def _contents(self) -> dict[str, int]:
        bodies = self._bodies["first"]
        return {"rows": self._rows, "pages": len(bodies), "size_bytes": sum(map(len, bodies))}

    def _render(self, name: str, records: Iterable[Any]) -> list[bytes]:
        rest = iter(records)
        slices = iter(lambda: list(islice(rest, flights.ROWS_A_PAGE)), [])
        bodies = [b'{"rows":' + dumped(rows) for rows in slices]
        return [
            body + self._next(name, number, len(bodies)) for number, body in enumerate(bodies, 1)
        ]

    def _generate(self, pages: int, number: int) -> bytes:
        rows = self._template.replace(PAGE_NUMBER, str(number).encode())
        return b'{"rows":' + rows + self._next(f"generated/{pages}", number, pages)

    def _next(self, name: str, number: int, pages: int) -> bytes:
        url = f"{self._base_url}{name}/{number + 1}" if number < pages else None
        return b',"next_url":' + dumped(url) + b"}"


def dumped(value: Any) -> bytes:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":")).encode()


def template(records: list[dict[str, Any]]) -> bytes:
    """One page's rows with a mark where the page's number goes, so that no key comes twice.

    The number stands in front of three digits of `rowid` and four of `flight`.
    """
    rows = dumped(records)
    if PAGE_NUMBER in rows:
        raise ValueError(f"the flights contain {PAGE_NUMBER!r}: choose another mark")
    rows = re.sub(rb'"rowid":(\d+)', lambda row: b'"rowid":@%03d' % (int(row[1]) % 1000), rows)
    return re.sub(rb'"flight":(\d+)', lambda row: b'"flight":@%04d' % int(row[1]), rows)


class Handler(BaseHTTPRequestHandler):
    """Answers GET, connections kept open, head and body sent without waiting for each other."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def __init__(self, pages: Pages, *arguments: Any) -> None:
        self._pages = pages
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """Send the page at the path."""
        body = self._pages.answer(self.path)
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    """Serve until somebody ends this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--limit", type=int, help="serve the first flights only")
    arguments = parser.parse_args()
    pages = Pages(f"http://127.0.0.1:{arguments.port}/", arguments.limit)
    ThreadingHTTPServer(("127.0.0.1", arguments.port), partial(Handler, pages)).serve_forever()


if __name__ == "__main__":
    main()
