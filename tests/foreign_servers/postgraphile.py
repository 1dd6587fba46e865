"""A shop's tables as PostGraphile 4 serves them (https://www.graphile.org/postgraphile/).

Its lists are connections as Relay defines them: nodes, and a cursor for those after them.
"""

from flows.extract.paginators import next_token
from flows.extract.selectors import records_at
from flows.source import Resource, Source

FIELDS = "id customer note shipTo isPaid freight changedAt"
ORDERS = f"""
query orders($after: Cursor) {{
    allOrders(first: 10, after: $after, orderBy: ID_ASC) {{
        nodes {{ {FIELDS} }}
        pageInfo {{ endCursor hasNextPage }}
    }}
}}
"""


def connection(name: str, field: str, query: str) -> Resource:
    """All nodes of a connection, by its cursor; a query changes nothing, so it may be repeated."""
    return Resource(
        name=name,
        path="graphql",
        method="POST",
        is_repeatable=True,
        body={"query": query, "variables": {}},
        records=records_at(f"data.{field}.nodes"),
        paging=next_token(
            f"data.{field}.pageInfo.endCursor",
            body_field="variables.after",
            more=f"data.{field}.pageInfo.hasNextPage",
        ),
        key=("id",),
    )


SOURCE = Source(
    name="postgraphile",
    base_url="http://localhost:5000/",
    resources=(
        connection("orders", "allOrders", ORDERS),
        # `risk` fails for each order of the second customer.
        connection("risks", "allOrders", ORDERS.replace("freight", "risk")),
        connection("misspelt", "allOrders", ORDERS.replace("freight", "fright")),
    ),
)
