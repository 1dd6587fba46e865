"""A shop's tables as json-server 0.17 serves them (https://github.com/typicode/json-server/tree/v0).

Keyless. For `_page`, it sends the header `Link`; past the last page it returns `[]`.
"""

from flows.extract.paginators import next_link, offset, page_number
from flows.extract.selectors import records_at
from flows.source import Cursor, Params, Partition, Resource, RowsOf, Source, Window

ROWS_A_PAGE = {"_limit": "10"}


def changed_orders(_: Partition, window: Window) -> Params:
    """Oldest first; times are text to the server, so they are compared as they are written."""
    since = {"updated_at_gte": f"{window.since:%Y-%m-%dT%H:%M:%SZ}"} if window.since else {}
    return {"_page": "1", **ROWS_A_PAGE, "_sort": "updated_at,id", **since}


SOURCE = Source(
    name="json_server",
    base_url="http://localhost:3000/",
    resources=(
        Resource(
            name="orders",
            path="orders",
            params=changed_orders,
            records=records_at(),
            paging=next_link(),
            key=("id",),
            cursor=Cursor("updated_at"),
        ),
        Resource(
            name="order_lines",
            path="orders/{parent}/lines",
            records=records_at(),
            key=("id",),
            key_is_global=True,
            partitions=RowsOf("orders", {"parent": "id"}),
            partition_columns=("parent",),
        ),
        Resource(
            name="customers",
            path="customers",
            params=ROWS_A_PAGE,
            records=records_at(),
            paging=page_number("_page"),
            key=("id",),
        ),
        Resource(
            name="products",
            path="products",
            params=ROWS_A_PAGE,
            records=records_at(),
            paging=offset("_start"),
            key=("sku",),
        ),
    ),
)
