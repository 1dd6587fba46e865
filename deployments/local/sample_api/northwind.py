"""Generates the sample Northwind: invented traders, products and orders, always the same.

Property names, types and page sizes are those of
https://services.odata.org/V4/Northwind/Northwind.svc/; the records are not. Knows no HTTP.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product

from deployments.local.sample_api.odata import EntitySet, Record

SEED = 1996
ORDERS_PER_SCALE = 830
FIRST_ORDER_ID = 10248
FIRST_DAY = datetime(1996, 7, 4, tzinfo=UTC)
LAST_DAY = datetime(1998, 5, 6, tzinfo=UTC)
PRICE_RISE = datetime(1997, 4, 1, tzinfo=UTC)
LINE_COUNTS, LINE_COUNT_WEIGHTS = (1, 2, 3, 4, 5, 6), (19, 31, 27, 14, 6, 3)
DISCOUNTS, DISCOUNT_WEIGHTS = (0, 0.05, 0.1, 0.15, 0.2, 0.25), (61, 9, 8, 7, 8, 7)

LONDON = ("London", None, "EC2A 4NE", "UK")
PLACES = (
    ("Aarhus", None, "8000", "Denmark"),
    ("Bergamo", None, "24100", "Italy"),
    ("Cork", "Co. Cork", None, "Ireland"),
    ("Graz", None, "8010", "Austria"),
    ("Göteborg", None, "411 03", "Sweden"),
    ("Köln", None, "50667", "Germany"),
    ("Lyon", None, "69002", "France"),
    ("Madrid", None, "28001", "Spain"),
    ("México D.F.", None, "05021", "Mexico"),
    ("Porto", None, "4000", "Portugal"),
    ("Recife", "PE", "50010", "Brazil"),
    ("Seattle", "WA", "98101", "USA"),
    ("Tampere", None, "33100", "Finland"),
    ("Utrecht", None, "3511", "Netherlands"),
    ("Vancouver", "BC", "V6B 1A1", "Canada"),
    ("Zürich", None, "8001", "Switzerland"),
)
STREETS = ("Mill Lane", "Station Road", "Quay Street", "Orchard Row", "High Street", "Canal Walk")
# Three letters of the first word and two of the second make a customer's id: keep them apart.
FIRST_WORDS = (
    "Amber Birch Cedar Delta Ember Fable Grove Harbour Ivory Juniper Kestrel Linden Meadow"
)
TRADES = ("Bakery", "Delicatessen", "Foods", "Grocers", "Kitchen", "Market", "Provisions")
GIVEN_NAMES = ("Ada", "Boris", "Clara", "Dmitri", "Elif", "Farah", "Goran", "Ines", "Jonas", "Lena")
FAMILY_NAMES = "Archer Bloom Costa Dahl Egede Fischer Garnier Holm Ivanov Keller"
JOBS = ("Owner", "Sales Manager", "Purchasing Agent", "Accounting Manager", "Order Clerk")
CATEGORIES = {
    "Beverages": ("Tea", "Coffee"),
    "Condiments": ("Mustard", "Chutney"),
    "Confections": ("Fudge", "Shortbread"),
    "Dairy Products": ("Butter", "Cheese"),
    "Grains/Cereals": ("Oats", "Pasta"),
    "Meat/Poultry": ("Ham", "Sausage"),
    "Produce": ("Apples", "Pears"),
    "Seafood": ("Herring", "Mussels"),
}
BRANDS = "Alpine Bayside Coastal Downland Eastgate Fairfield Glen Hilltop Island Jubilee"
CARRIERS = ("Blue Anchor Freight", "Crosswind Parcels", "Milestone Haulage")

ADDRESS = "Address City Region PostalCode Country"
TRADER = f"CompanyName ContactName ContactTitle {ADDRESS} Phone Fax"
PROPERTIES = {
    "Categories": "CategoryID CategoryName Description Picture",
    "Customers": f"CustomerID {TRADER}",
    "Employees": "EmployeeID LastName FirstName Title TitleOfCourtesy BirthDate HireDate "
    f"{ADDRESS} HomePhone Extension Photo Notes ReportsTo PhotoPath",
    "Order_Details": "OrderID ProductID UnitPrice Quantity Discount",
    "Orders": "OrderID CustomerID EmployeeID OrderDate RequiredDate ShippedDate ShipVia Freight "
    "ShipName ShipAddress ShipCity ShipRegion ShipPostalCode ShipCountry",
    "Products": "ProductID ProductName SupplierID CategoryID QuantityPerUnit UnitPrice "
    "UnitsInStock UnitsOnOrder ReorderLevel Discontinued",
    "Shippers": "ShipperID CompanyName Phone",
    "Suppliers": f"SupplierID {TRADER} HomePage",
}
PAGE_SIZES = {"Orders": 200, "Order_Details": 500}
KEY_SIZES = {"Order_Details": 2}


def generate(scale: int) -> dict[str, EntitySet]:
    """`scale` multiplies the orders and their lines; everything else stays the same."""
    rng = random.Random(SEED)  # noqa: S311 (sample data, not a secret)
    records = {
        "Categories": list(_categories()),
        "Customers": list(_customers(rng)),
        "Employees": list(_employees(rng)),
        "Products": list(_products(rng)),
        "Shippers": [(n, name, _phone(rng)) for n, name in enumerate(CARRIERS, 1)],
        "Suppliers": list(_suppliers(rng)),
    }
    records["Orders"] = list(_orders(rng, scale, records["Customers"]))
    records["Order_Details"] = list(_order_lines(rng, records["Orders"], records["Products"]))
    return {name: _entity_set(name, records[name]) for name in sorted(PROPERTIES)}


def _entity_set(name: str, records: list[Record]) -> EntitySet:
    properties = tuple(PROPERTIES[name].split())
    key = properties[: KEY_SIZES.get(name, 1)]
    return EntitySet(name, PAGE_SIZES.get(name, 20), key, properties, records)


def _orders(rng: random.Random, scale: int, customers: list[Record]) -> Iterator[Record]:
    """Orders grow denser with time; the first order of each month goes to London."""
    londoners = [customer for customer in customers if customer[5] == LONDON[0]]
    count = ORDERS_PER_SCALE * scale
    month = 0
    for index in range(count):
        days = round((LAST_DAY - FIRST_DAY).days * (index / (count - 1)) ** 0.8)
        ordered = FIRST_DAY + timedelta(days=days)
        customer = rng.choice(londoners if ordered.month != month else customers)
        month = ordered.month
        yield _order(rng, FIRST_ORDER_ID + index, ordered, customer)


def _order(rng: random.Random, order_id: int, ordered: datetime, customer: Record) -> Record:
    """An order that would ship after the last day has not shipped yet: its date is null."""
    customer_id, company, _, _, *address = customer[:9]
    shipped = ordered + timedelta(days=rng.choice((1, 2, 3, 5, 7, 8, 10, 21)))
    return (
        order_id,
        customer_id,
        rng.randint(1, 9),
        ordered,
        ordered + timedelta(days=rng.choice((14, 28, 28, 28, 42))),
        shipped if shipped <= LAST_DAY else None,
        rng.randint(1, len(CARRIERS)),
        round(rng.expovariate(1 / 78), 2),
        company,
        *address,
    )


def _order_lines(
    rng: random.Random, orders: list[Record], products: list[Record]
) -> Iterator[Record]:
    """Distinct products per order; list prices were a fifth lower before the price rise.

    Without a discount, the value is the integer 0 among decimals, as clients may meet in JSON.
    """
    prices = {product[0]: product[5] for product in products}
    for order_id, _, _, ordered, *_ in orders:
        share = 0.8 if ordered < PRICE_RISE else 1
        line_count = rng.choices(LINE_COUNTS, LINE_COUNT_WEIGHTS)[0]
        for product_id in sorted(rng.sample(range(1, len(products) + 1), line_count)):
            price = round(prices[product_id] * share, 2)
            quantity = 1 + int(rng.expovariate(1 / 23))
            yield order_id, product_id, price, quantity, rng.choices(DISCOUNTS, DISCOUNT_WEIGHTS)[0]


def _customers(rng: random.Random) -> Iterator[Record]:
    """91 customers, every sixteenth (six in all) in London."""
    for index, (first, trade) in enumerate(product(FIRST_WORDS.split(), TRADES)):
        customer_id = (first[:3] + trade[:2]).upper()
        place = LONDON if index % 16 == 3 else PLACES[index % len(PLACES)]
        yield customer_id, *_trader(rng, f"{first} {trade}", place)


def _suppliers(rng: random.Random) -> Iterator[Record]:
    families = FAMILY_NAMES.split()
    for supplier_id in range(1, 30):
        partner = families[(supplier_id + supplier_id // 10 + 1) % 10]
        name = f"{families[supplier_id % 10]} & {partner} Supply"
        home_page = f"https://supplier{supplier_id}.example" if supplier_id % 6 == 0 else None
        place = PLACES[supplier_id * 5 % len(PLACES)]
        yield supplier_id, *_trader(rng, name, place), home_page


def _trader(rng: random.Random, company: str, place: Record) -> Record:
    contact = f"{rng.choice(GIVEN_NAMES)} {rng.choice(FAMILY_NAMES.split())}"
    fax = _phone(rng) if rng.random() < 0.7 else None
    return company, contact, rng.choice(JOBS), _street(rng), *place, _phone(rng), fax


def _products(rng: random.Random) -> Iterator[Record]:
    nouns = list(CATEGORIES.values())
    for index in range(77):
        round_number, category = divmod(index, len(nouns))
        brand = BRANDS.split()[round_number]
        discontinued = index % 10 == 4
        yield (
            index + 1,
            f"{brand} {nouns[category][round_number % 2]}",
            index % 29 + 1,
            category + 1,
            f"{rng.choice((6, 12, 24))} boxes x {rng.choice((100, 250, 500))} g",
            round(3 + rng.expovariate(1 / 24), 2),
            0 if discontinued else rng.randint(3, 125),
            0 if discontinued else rng.choice((0, 0, 0, 10, 40, 70)),
            rng.choice((0, 5, 10, 15, 20, 25, 30)),
            discontinued,
        )


def _categories() -> Iterator[Record]:
    for category_id, (name, nouns) in enumerate(CATEGORIES.items(), 1):
        yield category_id, name, f"{' and '.join(nouns)}, and the like", _image(name)


def _employees(rng: random.Random) -> Iterator[Record]:
    """Five in Seattle and four in London; the second one manages the others."""
    for employee_id, family in enumerate(FAMILY_NAMES.split()[:9], 1):
        given = GIVEN_NAMES[employee_id]
        born = datetime(1950 + employee_id, employee_id, 3 * employee_id, tzinfo=UTC)
        yield (
            employee_id,
            family,
            given,
            "Vice President, Sales" if employee_id == 2 else "Sales Representative",
            ("Ms.", "Mr.", "Dr.")[employee_id % 3],
            born,
            born.replace(year=1992 + employee_id % 3),
            _street(rng),
            *(PLACES[11] if employee_id < 6 else LONDON),
            _phone(rng),
            str(400 + 7 * employee_id),
            _image(family),
            f"{given} {family} is an invented person.",
            None if employee_id == 2 else 2,
            f"http://example.com/employees/{employee_id}.bmp",
        )


def _street(rng: random.Random) -> str:
    return f"{rng.randint(1, 120)} {rng.choice(STREETS)}"


def _phone(rng: random.Random) -> str:
    return f"({rng.randint(100, 999)}) 555-{rng.randint(100, 199):04}"


def _image(label: str) -> str:
    return base64.b64encode(f"sample picture of {label}".encode()).decode()
