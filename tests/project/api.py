"""What the sources of the tests' project ask: the same rows at every request, in pages."""

import json
from datetime import date, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.http_servers import Answer

FIRST_DAY = date(1996, 7, 4)
ORDERS = 830
PAGE_SIZES = {"Orders": 200, "Order_Details": 500}

Row = dict[str, Any]


def _named(kind: str, count: int) -> list[Row]:
    return [
        {f"{kind}ID": number, "CompanyName": f"{kind} {number}", "Phone": f"{number}"}
        for number in range(1, count + 1)
    ]


def _order(number: int) -> Row:
    """An order; every third one goes to London."""
    day = FIRST_DAY + timedelta(days=number * 671 // ORDERS)
    return {
        "OrderID": 10248 + number,
        "CustomerID": f"C{number % 91 + 1:02}",
        "OrderDate": f"{day}T00:00:00Z",
        "ShipName": f"Ship {number}",
        "ShipCity": "Cork" if number % 3 else "London",
    }


def _lines(number: int) -> list[Row]:
    """Three lines for the first 522 orders, two for the others."""
    return [
        {
            "OrderID": 10248 + number,
            "ProductID": product,
            "UnitPrice": 1.5 * product,
            "Quantity": 1 + number % 30,
            "Discount": 0,
        }
        for product in range(1, 4 if number < 522 else 3)
    ]


SETS: dict[str, list[Row]] = {
    "Categories": _named("Category", 8),
    "Customers": [{**row, "CustomerID": f"C{row['Phone']:0>2}"} for row in _named("Customer", 91)],
    "Employees": _named("Employee", 9),
    "Order_Details": [line for number in range(ORDERS) for line in _lines(number)],
    "Orders": [_order(number) for number in range(ORDERS)],
    "Products": [
        {**row, "CategoryID": n % 8 + 1, "SupplierID": n % 29 + 1}
        for n, row in enumerate(_named("Product", 77))
    ],
    "Shippers": _named("Shipper", 3),
    "Suppliers": _named("Supplier", 29),
}


def answer(target: str) -> Answer:
    """The response to a path with its query."""
    parts = urlsplit(target)
    options = {name: values[0] for name, values in parse_qs(parts.query).items()}
    name = parts.path.strip("/")
    if name == "archive":
        return _as_answer({"daily": _weather(options["start_date"], options["end_date"])})
    if name not in SETS:
        return Answer(b"", 404)
    return _as_answer(_page(name, options))


def _page(name: str, options: dict[str, str]) -> Row:
    since, until = options.get("since", ""), options.get("until", "~")
    rows = [row for row in SETS[name] if since <= row.get("OrderDate", since) < until]
    start, size = int(options.get("after", 0)), PAGE_SIZES.get(name, 20)
    page: Row = {"value": rows[start : start + size]}
    if start + size < len(rows):
        kept = "".join(f"&{each}={options[each]}" for each in ("since", "until") if each in options)
        page["next"] = f"{name}?after={start + size}{kept}"
    return page


def _weather(first: str, last: str) -> dict[str, list[Any]]:
    begin = date.fromisoformat(first)
    count = (date.fromisoformat(last) - begin).days + 1
    days = [begin + timedelta(days=number) for number in range(count)]
    return {
        "time": [day.isoformat() for day in days],
        "temperature_2m_max": [float(day.toordinal() % 30) for day in days],
    }


def _as_answer(document: object) -> Answer:
    return Answer(json.dumps(document).encode())
