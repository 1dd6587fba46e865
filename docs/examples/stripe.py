"""Stripe: customers, invoices with all their lines, and events (https://docs.stripe.com/api).

Secret `stripe-key`: a restricted key with read access to these.
"""

from datetime import timedelta

from flows.extract.auth import Bearer
from flows.extract.paginators import keyset
from flows.extract.selectors import records_at
from flows.source import Cursor, Resource, RowsOf, Source

VERSION = {"Stripe-Version": "2025-03-31.basil"}
# Lists have the newest objects first. The next page begins after the id of the last one.
PAGING = keyset("id", param="starting_after", more="has_more")


def created(name: str, lookback: timedelta, expand: tuple[str, ...] = ()) -> Resource:
    """A list that can be limited by `created`, a Unix time in seconds.

    Objects change without moving there, so those of the `lookback` are read again.
    """
    return Resource(
        name=name,
        path=name,
        params={"limit": 100, "created[gte]": "{since}", "expand[]": expand},
        headers=VERSION,
        records=records_at("data"),
        paging=PAGING,
        key=("id",),
        cursor=Cursor("created", lookback=lookback, format="epoch_s"),
    )


SOURCE = Source(
    name="stripe",
    base_url="https://api.stripe.com/v1/",
    login=Bearer("stripe-key"),
    resources=(
        created("customers", timedelta(days=30)),
        # `customer` is its id; expanded, the whole object.
        created("invoices", timedelta(days=90), expand=("data.customer",)),
        # The field `lines` of an invoice has the first ten only.
        Resource(
            name="invoice_lines",
            path="invoices/{invoice_id}/lines",
            params={"limit": 100},
            headers=VERSION,
            records=records_at("data"),
            paging=PAGING,
            key=("invoice_id", "id"),
            partitions=RowsOf("invoices", {"invoice_id": "id"}, changed_only=True),
            partition_columns=("invoice_id",),
        ),
        # Every change of every object, for 30 days; they never change themselves.
        created("events", timedelta(hours=1)),
    ),
)
