"""Northwind, the public OData v4 reference service: a trading company's orders, 1996 to 1998.

https://services.odata.org/V4/Northwind/Northwind.svc/ — keyless; the server decides the page size
and sends the next page's address under `@odata.nextLink`.
"""

from datetime import timedelta

from flows.extract.paginators import next_url
from flows.extract.selectors import records_at
from flows.source import Cursor, Params, Partition, Resource, Source, Window

MONEY = "numeric(12,4)"
EMPLOYEE_FIELDS = (
    "EmployeeID,LastName,FirstName,Title,TitleOfCourtesy,BirthDate,HireDate,Address,City,Region,"
    "PostalCode,Country,HomePhone,Extension,Notes,ReportsTo,PhotoPath"
)


def orders_by_date(_: Partition, window: Window) -> Params:
    """Oldest first; times as OData v4 writes them in URLs (URL conventions, 5.1.1)."""
    conditions = [
        f"OrderDate {operator} {at:%Y-%m-%dT%H:%M:%SZ}"
        for operator, at in (("ge", window.since), ("lt", window.until))
        if at is not None
    ]
    return {"$orderby": "OrderDate,OrderID"} | (
        {"$filter": " and ".join(conditions)} if conditions else {}
    )


def entity_set(name: str, *key: str, params: Params | None = None) -> Resource:
    """An entity set that is read completely and merged by its key."""
    return Resource(
        name=name.lower(),
        path=name,
        params=params or {},
        records=records_at("value"),
        paging=next_url("@odata.nextLink"),
        key=key,
        columns={"unit_price": MONEY, "discount": "numeric(5,4)"},
    )


SOURCE = Source(
    name="northwind",
    base_url="https://services.odata.org/V4/Northwind/Northwind.svc/",
    resources=(
        Resource(
            name="orders",
            path="Orders",
            params=orders_by_date,
            records=records_at("value"),
            paging=next_url("@odata.nextLink"),
            key=("OrderID",),
            columns={"freight": MONEY},
            cursor=Cursor("OrderDate", lookback=timedelta(days=30)),
        ),
        entity_set("Order_Details", "OrderID", "ProductID"),
        entity_set("Customers", "CustomerID"),
        entity_set("Products", "ProductID"),
        entity_set(
            "Categories",
            "CategoryID",
            params={"$select": "CategoryID,CategoryName,Description"},
        ),
        entity_set("Employees", "EmployeeID", params={"$select": EMPLOYEE_FIELDS}),
        entity_set("Shippers", "ShipperID"),
        entity_set("Suppliers", "SupplierID"),
    ),
)
