"""Every way to page, to write rows and to log in that the sample API knows, as a source has it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from flows.deletes import DELETED_AT
from flows.extract.auth import ApiKey, Basic, Bearer, OAuth2
from flows.extract.paginators import (
    keyset,
    next_link,
    next_token,
    next_url,
    offset,
    page_number,
    response_header,
    unless,
)
from flows.extract.selectors import (
    columns_at,
    csv_rows,
    keyed_at,
    ndjson,
    record_at,
    records_at,
    rows_at,
    xml_at,
    zipped,
)
from flows.source import (
    Accounts,
    Cursor,
    IntegerCursor,
    Job,
    Login,
    Params,
    Partition,
    Resource,
    Rule,
    TokenCursor,
    Tombstones,
    Window,
)
from tests.fault_api.catalogue import logins
from tests.fault_api.catalogue.items import item, items
from tests.fault_api.catalogue.stamps import LOCAL, stamped
from tests.fault_api.catalogue.styles import PAGE_SIZE

Row = Mapping[str, Any]


def _texts(rows: Iterable[Row]) -> list[Row]:
    """Rows as CSV has them."""
    return [{name: str(value) for name, value in row.items()} for row in rows]


ROWS: list[Row] = [dict(row) for row in items()]
TEXTS = _texts(ROWS)
NAMES = tuple(ROWS[0])
IDS = [row["id"] for row in ROWS]
# The third of the parents: the only one with more children than a page holds.
CHILDREN: list[Row] = [{**item(number), "parent_id": 3} for number in range(4, 16)]

FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
NOW = datetime(2024, 1, 31, 12, tzinfo=UTC)
TEN_DAYS = timedelta(days=10)
IN_STEPS = Cursor("updated_at", start=FIRST_DAY, step=TEN_DAYS)
IN_STEPS_AGAIN = Cursor("updated_at", 3 * TEN_DAYS, FIRST_DAY, TEN_DAYS)

TOKEN_PATH = "/oauth/token"  # noqa: S105 (an address)
SECRETS = {
    "KEY_OF_LAB": logins.KEY,
    "TOKEN_OF_LAB": logins.BEARER_TOKEN,
    "PASSWORD_OF_LAB": logins.PASSWORD,
    "CLIENT_OF_LAB": logins.CLIENT_SECRET,
    "OTHER_TOKEN_OF_LAB": "other-bearer-token",
}


@dataclass(frozen=True)
class Style:
    """One way to read the sample API's rows.

    Attributes:
        path: below the API's address.
        pages: the number of responses; all except the last one or two have PAGE_SIZE rows.
        finds_by: what locates the next page: the number of rows before it (a link or a token may
            hide that), the last row, a time; or there is no next page.
        declared: arguments of the resource.
        rows: the raw table's final rows.
        concurrency: of the source; with more than one, pages are requested ahead of their turn.
    """

    name: str
    path: str
    pages: int
    finds_by: Literal["position", "row", "time", "nothing"]
    declared: Mapping[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=lambda: ROWS)
    partition: Partition = field(default_factory=Partition)
    concurrency: int = 1

    def __str__(self) -> str:
        """Its name, for the ids of the cases."""
        return self.name

    @property
    def target(self) -> str:
        """The prefix of path and query of its requests."""
        return "/" + self.path.format(**self.partition.values)

    @property
    def pages_before(self) -> int:
        """How many pages go well where all after the first fail; the only page fails itself."""
        return min(1, self.pages - 1)

    @property
    def rows_before(self) -> list[Row]:
        """The rows on them."""
        return self.rows[: PAGE_SIZE * self.pages_before]

    def rows_of(self, ids: Iterable[int]) -> list[Row]:
        """The rows of these ids, as this style stores them."""
        found = [dict(item(number)) for number in ids]
        return _texts(found) if self.rows is TEXTS else found

    def resource(self, name: str, **changes: Any) -> Resource:
        """Declared as a source would, with a checkpoint after every page."""
        common = {"key": ("id",), "checkpoint_rows": PAGE_SIZE}
        return Resource(name, self.path, **{**common, **self.declared, **changes})


ACCOUNTS = Accounts({"eu": Bearer("other-token-of-lab"), "us": Bearer("token-of-lab")})


def login_of(style: Style, url: str) -> Login | Accounts | None:
    """The login that a style needs at an API."""
    if style is OF_ACCOUNTS:
        return ACCOUNTS
    known = {
        "login/header_key": ApiKey("key-of-lab", header=logins.KEY_HEADER),
        "login/query_key": ApiKey("key-of-lab", param=logins.KEY_PARAM),
        "login/bearer": Bearer("token-of-lab"),
        "login/basic": Basic(logins.USER, "password-of-lab"),
        "login/oauth2": OAuth2(f"{url}{TOKEN_PATH}", logins.CLIENT_ID, "client-of-lab"),
    }
    return known.get(style.path)


def _window(_: Partition, window: Window) -> Params:
    return {"since": f"{window.since:%Y-%m-%d}", "until": f"{window.until:%Y-%m-%d}"}


def _at(place: str, **declared: Any) -> dict[str, Any]:
    return {"records": records_at(place), **declared}


GRAPHQL = _at(
    "data.items.nodes",
    method="POST",
    body={"query": "query ($after: String) { items(after: $after) { nodes } }", "variables": {}},
    paging=next_token(
        "data.items.pageInfo.endCursor",
        body_field="variables.after",
        more="data.items.pageInfo.hasNextPage",
    ),
)
PAGED = (
    Style("next_url", "styles/next_url", 3, "position", _at("items", paging=next_url("next"))),
    Style("next_path", "styles/next_path", 3, "position", _at("items", paging=next_url("next"))),
    Style(
        "flagged_url", "styles/flagged_url", 3, "position",
        _at("items", paging=next_url("next", more="more")),
    ),
    Style(
        "flagged_end", "styles/flagged_url", 3, "position",
        _at("items", paging=next_url("next", more=unless("is_last"))),
    ),
    Style("link_header", "styles/link_header", 3, "position", _at("", paging=next_link())),
    Style(
        "token_body", "styles/token_body", 3, "position",
        _at("items", paging=next_token("next_token", param="token")),
    ),
    Style(
        "token_header", "styles/token_header", 3, "position",
        _at("items", paging=next_token(response_header="X-Next-Token", header="X-Page-Token")),
    ),
    Style("offset", "styles/offset", 4, "position", _at("items", paging=offset())),
    Style(
        "offset_total", "styles/offset", 3, "position", _at("items", paging=offset(total="total"))
    ),
    Style(
        "offset_from_1", "styles/offset_from_1", 3, "position",
        _at(
            "items", params={"startIndex": 1},
            paging=offset("startIndex", first=1, total="totalResults"),
        ),
    ),
    Style("page", "styles/page", 4, "position", _at("items", paging=page_number())),
    Style(
        "page_total_in_header", "styles/page_headers", 3, "position",
        _at("", paging=page_number(total_pages=response_header("X-WP-TotalPages"))),
    ),
    Style(
        "page_error_at_the_end", "styles/page_headers", 4, "position",
        _at("", paging=page_number(), rules=(Rule("end", 400, "invalid_page_number"),)),
    ),
    Style(
        "page_has_more", "styles/page", 3, "position",
        _at("items", paging=page_number(more="has_more")),
    ),
    Style(
        "page_total_pages", "styles/page", 3, "position",
        _at("items", paging=page_number(total_pages="total_pages")),
    ),
    Style("keyset", "styles/keyset", 4, "row", _at("items", paging=keyset("id", param="after_id"))),
    Style(
        "keyset_has_more", "styles/keyset", 3, "row",
        _at("items", paging=keyset("id", param="after_id", more="has_more")),
    ),
    Style(
        "windows", "styles/windows", 3, "time",
        _at("items", params=_window, cursor=IN_STEPS_AGAIN),
    ),
    Style("graphql", "styles/graphql", 3, "position", {**GRAPHQL, "is_repeatable": True}),
    Style(
        "form", "styles/token_body", 3, "position",
        _at(
            "items", method="POST", sends="form", body={"limit": PAGE_SIZE}, is_repeatable=True,
            paging=next_token("next_token", body_field="token"),
        ),
    ),
)  # fmt: skip
AHEAD = tuple(
    replace(style, name=f"{style.name}_ahead", concurrency=4)
    for style in PAGED
    if style.name
    in {"offset_total", "offset_from_1", "page_total_pages", "page_total_in_header", "windows"}
)
BY_CURSOR = (
    Style(
        "milliseconds", "styles/windows", 3, "time",
        _at(
            "items",
            params={"form": "ms", "since": "{since}", "through": "{last}"},
            cursor=Cursor(
                "changed.ms", 3 * TEN_DAYS, FIRST_DAY, timedelta(hours=240), format="epoch_ms"
            ),
        ),
        [stamped(row, "ms") for row in ROWS],
    ),
    Style(
        "local_time", "styles/windows", 3, "time",
        _at(
            "items",
            params={"form": "local", "since": "{since}", "until": "{until}"},
            cursor=Cursor(
                "changed", 3 * TEN_DAYS, FIRST_DAY, TEN_DAYS, format=LOCAL, zone="Europe/Berlin",
                lag=timedelta(minutes=5),
            ),
        ),
        [stamped(row, "local") for row in ROWS],
    ),
    Style(
        "integers", "styles/keyset", 4, "row",
        _at(
            "items",
            params={"after_id": "{after}"},
            paging=keyset("id", param="after_id"),
            cursor=IntegerCursor("id", lookback=len(ROWS)),
        ),
    ),
    Style(
        "sync_token", "styles/next_url", 3, "position",
        _at(
            "items",
            params={"changes": "yes", "sync": "{token}"},
            paging=next_url("next"),
            cursor=TokenCursor("sync"),
        ),
    ),
)  # fmt: skip
NONE = Style("none", "styles/none", 1, "nothing", _at("items"))
NDJSON = Style("ndjson", "formats/ndjson", 1, "nothing", {"records": ndjson()})
CSV = Style("csv", "formats/csv", 1, "nothing", {"records": csv_rows()}, TEXTS)
GZIP = Style("gzip", "formats/gzip", 1, "nothing", _at("items"))
XML = Style("xml", "formats/xml", 1, "nothing", {"records": xml_at("items.item")}, TEXTS)
ZIP = Style(
    "zip", "formats/zip", 1, "nothing", {"records": zipped(csv_rows(), "items-*.csv")}, TEXTS
)
OTHER_FORMATS = (
    Style("csv_rows", "formats/csv_rows", 1, "nothing", {"records": csv_rows(names=NAMES)}, TEXTS),
    Style("csv.gz", "formats/csv.gz", 1, "nothing", {"records": csv_rows()}, TEXTS),
    Style("list", "formats/list", 1, "nothing", _at("")),
    Style("object", "formats/object", 1, "nothing", {"records": record_at()}, ROWS[:1]),
    Style("columns", "formats/columns", 1, "nothing", {"records": columns_at("columns")}),
    Style("rows", "formats/rows", 1, "nothing", {"records": rows_at()}),
    Style("edges", "formats/edges", 1, "nothing", _at("data.items[].node")),
    Style(
        "in_lists", "formats/in_lists", 1, "nothing",
        {"records": records_at("[].items[]", parents={"group": "[].number"})},
        [{"group": number // 10 + 1, **row} for number, row in enumerate(ROWS)],
    ),
    Style(
        "by_id", "formats/by_id", 1, "nothing", {"records": keyed_at("items")},
        [{**row, "id": str(row["id"])} for row in ROWS],
    ),
)  # fmt: skip
JOB = Style(
    "job", "jobs", 1, "nothing",
    {
        "records": csv_rows(),
        "method": "POST",
        "is_repeatable": True,
        "job": Job("jobs/{id}", "{result.url}", "state", ("completed",), ("failed",)),
    },
    TEXTS,
)  # fmt: skip
LISTS = (*PAGED, NONE, NDJSON, CSV, GZIP)
CHILDREN_OF_ONE = Style(
    "children",
    "parents/{parent}/children",
    2,
    "position",
    _at("items", paging=next_url("next"), partitions=(Partition("3", {"parent": 3}),)),
    CHILDREN,
    Partition("3", {"parent": 3}),
)
GONE = str(ROWS[12]["name"])
TOMBSTONES = Style(
    "tombstones",
    "styles/next_url",
    3,
    "position",
    _at("items", paging=next_url("next"), deletes=Tombstones("name", values=(GONE,))),
    [{**row, DELETED_AT: row["name"] == GONE} for row in ROWS],
)
# The API refuses the token of the other account.
OF_ACCOUNTS = Style(
    "accounts",
    "login/bearer",
    3,
    "position",
    _at(
        "items",
        paging=next_url("next"),
        key=("account", "id"),
        partitions=ACCOUNTS.partitions,
        partition_columns=("account",),
    ),
    [{"account": "us", **row} for row in ROWS],
    ACCOUNTS.partitions[1],
)
LOGGED_IN = tuple(
    Style(name, f"login/{name}", 3, "position", _at("items", paging=next_url("next")))
    for name in ("header_key", "query_key", "bearer", "basic", "oauth2")
)
TABLE = (*LISTS, XML, ZIP, CHILDREN_OF_ONE, TOMBSTONES, OF_ACCOUNTS, *AHEAD, *BY_CURSOR)
ALL = (*TABLE, *OTHER_FORMATS, *LOGGED_IN)


def named(*names: str) -> tuple[Style, ...]:
    """The styles of these names."""
    known = {style.name: style for style in ALL}
    return tuple(known[name] for name in names)
