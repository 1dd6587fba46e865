"""The loads of the chaos tests: a small shop's API, its paging, and a load of it.

The rows change their shape: a column that starts with nulls, one that changes from whole numbers
to fractions, one that comes late, objects, and a key that is sent twice.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import quote, urlencode

from psycopg2.extensions import connection as Connection

from flows.deletes import Deletes
from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.extract.paginators import next_url, page_number
from flows.extract.selectors import records_at
from flows.load.ledger import Entry
from flows.load.loader import load
from flows.load.options import LoadOptions
from flows.page import Page, Resume
from flows.source import (
    Cursor,
    Disposition,
    FullList,
    IntegerCursor,
    Params,
    Partition,
    Resource,
    Source,
    TokenCursor,
    Tombstones,
    Window,
)

Paging = Literal["next url", "steps", "stamps", "numbers", "tokens", "one page", "ahead"]
PAGING = {
    "next url": next_url("next"),
    "steps": next_url("next"),
    "stamps": next_url("next"),
    "numbers": next_url("next"),
    "tokens": next_url("next"),
    "one page": None,
    "ahead": page_number(total_pages="pages"),
}
DELETES: dict[str, Deletes] = {
    "list": FullList(),
    "tombstones": Tombstones("late"),
}
Edition = Literal["old", "new"]

FIRST_DAY = datetime(2024, 3, 1, tzinfo=UTC)
NOW = datetime(2024, 3, 5, 15, tzinfo=UTC)
PAGES_PER_DAY = (2, 1, 3, 1)
ROWS_PER_PAGE = 5
LAST_ID = sum(PAGES_PER_DAY) * ROWS_PER_PAGE - 1
LOOKBACK = 100
STAMPS = {"from": "{since}", "to": "{last}"}
CHECKPOINT_ROWS = 10


@dataclass(frozen=True)
class Scenario:
    """One way to load: `loaded_before` begins with the old edition's rows in the table.

    With the paging `ahead`, the number of pages is known, and they are fetched side by side. With
    `stamps`, a window of days is written in seconds; with `numbers`, a load asks for higher ids,
    with `tokens` for what changed since the token of the one before.
    With `pages` even, the last page ends with a checkpoint. With `deletes`, the new edition's list
    lacks a row, or the records of its last pages say that they are deleted.
    """

    writes: Disposition
    paging: Paging = "next url"
    pages: int = 7
    loaded_before: bool = False
    deletes: Literal["", "list", "tombstones"] = ""

    @property
    def resource(self) -> Resource:
        """The loaded resource, declared as in a source; append has no key."""
        has_key = self.writes != "append"
        lookback = timedelta(days=10 if has_key else 0)
        by_day = Cursor("at", lookback, FIRST_DAY, timedelta(days=1))
        cursors: dict[str, tuple[Any, Any]] = {
            "steps": (by_day, _day),
            "stamps": (replace(by_day, field="seconds", format="epoch_s"), STAMPS),
            "tokens": (TokenCursor("sync"), {"token": "{token}"}),
            "numbers": (IntegerCursor("id", lookback=LOOKBACK), {"after": "{after}"}),
        }
        cursor, params = cursors.get(self.paging, (None, {}))
        return Resource(
            name="items",
            path="items",
            records=records_at("records"),
            params=params,
            paging=PAGING[self.paging],
            key=("id",) if has_key else (),
            disposition=self.writes,
            deletes=DELETES.get(self.deletes),
            cursor=cursor,
            checkpoint_rows=CHECKPOINT_ROWS,
        )

    def site(self, edition: Edition = "new") -> dict[str, bytes]:
        """The API's responses by path and query, in the order of a load's requests."""
        if self.paging in ("steps", "stamps"):
            days = [FIRST_DAY + timedelta(days=number) for number in range(len(PAGES_PER_DAY))]
            firsts = [
                f"/{edition}/items?" + urlencode(self._params_of(day), quote_via=quote)
                for day in days
            ]
            chains = list(zip(firsts, PAGES_PER_DAY, strict=True))
        else:
            goes_on = self.loaded_before and edition == "new" and self.writes != "replace"
            queries = {"numbers": f"?after={LAST_ID - LOOKBACK}", "tokens": "?token=old"}
            query = queries.get(self.paging, "") if goes_on else ""
            chains = [(f"/{edition}/items{query}", self.pages)]
        paths = [
            [first, *(_with_page(first, number) for number in range(2, count + 1))]
            for first, count in chains
        ]
        numbers = iter(range(sum(map(len, paths))))
        return {
            path: _body(_records(next(numbers), edition), following, self.pages, edition)
            for chain in paths
            for path, following in zip(chain, [*chain[1:], None], strict=True)
        }

    def later(self) -> dict[str, bytes]:
        """The API's response to the cursor of a complete load: nothing has changed since."""
        queries = ("token=new", f"after={LAST_ID - LOOKBACK}")
        return {f"/new/items?{query}": _body([], None, self.pages, "new") for query in queries}

    def _params_of(self, day: datetime) -> Params:
        """The query of a day's first page."""
        window = Window(day, day + timedelta(days=1))
        if self.paging == "steps":
            return _day(Partition(), window)
        return {"from": int(day.timestamp()), "to": int(day.timestamp()) + 24 * 3600 - 1}

    def load(
        self,
        connection: Connection,
        api_url: str,
        edition: Edition = "new",
        asked: list[str] | None = None,
    ) -> Entry:
        """Load an edition at noon of the fifth day; `asked` collects the requested URLs."""
        source = Source("shop", f"{api_url}{edition}", (self.resource,), max_wait_seconds=0)

        def pages(window: Window, resume: Resume | None) -> Iterator[Page]:
            found = read_pages(client, source, self.resource, Partition(), window, resume)
            for page in found:
                if asked is not None:
                    asked.append(page.url.removeprefix(api_url.rstrip("/")))
                yield page

        with Client(source) as client:
            address = (source.name, self.resource, Partition())
            return load(connection, *address, pages, LoadOptions(now=NOW))


def _day(_: Partition, window: Window) -> Params:
    since, until = window.since, window.until
    assert since is not None
    assert until is not None
    return {"since": since.date().isoformat(), "until": until.date().isoformat()}


def _with_page(path: str, number: int) -> str:
    return f"{path}{'&' if '?' in path else '?'}page={number}"


def _body(
    records: list[dict[str, Any]], following: str | None, pages: int, edition: Edition
) -> bytes:
    sync = None if following else edition
    document = {"records": records, "next": following, "pages": pages, "sync": sync}
    return json.dumps(document).encode()


def _records(page: int, edition: Edition) -> list[dict[str, Any]]:
    """Half of the rows differ between the editions; each has one that the other lacks."""
    numbers = range(page * ROWS_PER_PAGE, (page + 1) * ROWS_PER_PAGE)
    records = [_record(number, page, edition) for number in numbers]
    if page == 0:
        records[3]["id"] = -1 if edition == "old" else -2
    if page == 5:
        records[2]["id"] = 1
    return records


def _record(number: int, page: int, edition: Edition) -> dict[str, Any]:
    day = next(
        day for day in range(len(PAGES_PER_DAY)) if page < sum(PAGES_PER_DAY[: day + 1]) or day == 3
    )
    version = edition if number % 2 else "both"
    at = FIRST_DAY + timedelta(days=day, minutes=number)
    record: dict[str, Any] = {
        "id": number,
        "at": at.isoformat(),
        "seconds": int(at.timestamp()),
        "name": f'{version} "{number}",\té\n\\.',
        "amount": number if page < 4 else number + 0.25,
        "note": None if page < 2 else f"note {number}",
        "isOpen": number % 3 == 0,
    }
    if page == 4:
        record["extra"] = {"tags": [version, number]}
    if page > 4 and edition == "new":
        record["late"] = number
    return record
