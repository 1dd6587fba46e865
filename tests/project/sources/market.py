"""A company's orders, as `tests.project.api` serves them."""

from datetime import timedelta

from flows.extract.paginators import next_url
from flows.extract.selectors import records_at
from flows.source import Cursor, Params, Partition, Resource, Source, Window

PINS = {"unit_price": "numeric(12,4)", "discount": "numeric(5,4)"}


def by_date(_: Partition, window: Window) -> Params:
    ends = {"since": window.since, "until": window.until}
    return {name: f"{at:%Y-%m-%d}" for name, at in ends.items() if at is not None}


def listed(name: str, *key: str) -> Resource:
    return Resource(
        name=name.lower(),
        path=name,
        records=records_at("value"),
        paging=next_url("next"),
        key=key,
        columns=PINS,
    )


SOURCE = Source(
    name="market",
    base_url="https://market.example.com/",
    resources=(
        Resource(
            name="orders",
            path="Orders",
            params=by_date,
            records=records_at("value"),
            paging=next_url("next"),
            key=("OrderID",),
            cursor=Cursor("OrderDate", lookback=timedelta(days=30)),
        ),
        listed("Order_Details", "OrderID", "ProductID"),
        listed("Customers", "CustomerID"),
        listed("Products", "ProductID"),
        listed("Categories", "CategoryID"),
        listed("Employees", "EmployeeID"),
        listed("Shippers", "ShipperID"),
        listed("Suppliers", "SupplierID"),
    ),
)
