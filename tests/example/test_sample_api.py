"""Promises of the sample API: the two services' contracts, kept with generated data."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from statistics import fmean
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx
import pytest
import uvicorn

from deployments.local.sample_api.app import create_app

ROOT = "/V4/Northwind/Northwind.svc/"
REPOSITORY = Path(__file__).parents[2]
TODAY = date(2024, 3, 10)
COUNTS = {
    "Orders": 830,
    "Customers": 91,
    "Products": 77,
    "Categories": 8,
    "Employees": 9,
    "Shippers": 3,
    "Suppliers": 29,
}
PAGE_SIZES = {"Orders": 200, "Order_Details": 500, "Customers": 20, "Products": 20}

Pages = Callable[..., list[dict[str, Any]]]
Weather = Callable[..., httpx.Response]
Serve = Callable[..., httpx.Client]


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    """Starts the app on a free port of this machine and returns a client of it."""
    with contextlib.ExitStack() as stack:

        def start(**arguments: Any) -> httpx.Client:
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            config = uvicorn.Config(create_app(**arguments), log_level="warning")
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            stack.callback(thread.join)
            stack.callback(setattr, server, "should_exit", True)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            client = stack.enter_context(httpx.Client(base_url=url, timeout=30))
            await_start(client)
            return client

        yield start


@pytest.fixture(scope="module")
def client(serve: Serve) -> httpx.Client:
    return serve(today=TODAY)


@pytest.fixture
def pages(client: httpx.Client) -> Pages:
    def read(entity_set: str, **options: str) -> list[dict[str, Any]]:
        """Every page's body, following next links as a client of a relative URL must."""
        params = {f"${name}": value for name, value in options.items()}
        response = client.get(ROOT + entity_set, params=params)
        bodies = [response.json()]
        while "@odata.nextLink" in bodies[-1]:
            assert len(bodies) < 100
            response = client.get(urljoin(str(response.url), bodies[-1]["@odata.nextLink"]))
            assert response.status_code == 200, response.text
            bodies.append(response.json())
        return bodies

    return read


@pytest.fixture
def weather(client: httpx.Client) -> Weather:
    def read(**changes: object) -> httpx.Response:
        params: dict[str, Any] = {
            "latitude": "51.5",
            "longitude": "-0.13",
            "start_date": "1997-01-01",
            "end_date": "1997-01-31",
            "daily": "temperature_2m_max,precipitation_sum",
            "timezone": "Europe/London",
            **changes,
        }
        given = {name: value for name, value in params.items() if value is not None}
        return client.get("/v1/archive", params=given)

    return read


def records(bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for body in bodies for record in body["value"]]


def await_start(client: httpx.Client) -> None:
    deadline = time.monotonic() + 20
    while not is_up(client):
        assert time.monotonic() < deadline, "the sample API did not start"
        time.sleep(0.02)


def is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/").is_success
    except httpx.ConnectError:
        return False


def value_of(client: httpx.Client, entity_set: str) -> list[dict[str, Any]]:
    value: list[dict[str, Any]] = client.get(ROOT + entity_set).json()["value"]
    return value


def test_service_root_lists_the_entity_sets(client: httpx.Client) -> None:
    body = client.get(ROOT).json()
    assert {"name": "Orders", "kind": "EntitySet", "url": "Orders"} in body["value"]
    assert {item["name"] for item in body["value"]} == {*COUNTS, "Order_Details"}
    assert client.get(ROOT.rstrip("/")).json()["value"] == body["value"]


@pytest.mark.parametrize(("entity_set", "count"), COUNTS.items())
def test_entity_sets_have_their_size_and_unique_keys(
    pages: Pages, entity_set: str, count: int
) -> None:
    rows = records(pages(entity_set))
    assert len({next(iter(row.values())) for row in rows}) == len(rows) == count


@pytest.mark.parametrize(("entity_set", "size"), PAGE_SIZES.items())
def test_pages_have_the_size_of_the_real_service(pages: Pages, entity_set: str, size: int) -> None:
    sizes = [len(body["value"]) for body in pages(entity_set)]
    assert set(sizes[:-1]) == {size}
    assert 0 < sizes[-1] <= size


def test_orders_have_exactly_the_real_properties(client: httpx.Client) -> None:
    body = client.get(ROOT + "Orders").json()
    order = body["value"][0]
    assert body["@odata.context"] == str(client.base_url.join(ROOT + "$metadata#Orders"))
    assert list(order) == [
        "OrderID", "CustomerID", "EmployeeID", "OrderDate", "RequiredDate", "ShippedDate",
        "ShipVia", "Freight", "ShipName", "ShipAddress", "ShipCity", "ShipRegion",
        "ShipPostalCode", "ShipCountry",
    ]  # fmt: skip
    assert (order["OrderID"], order["OrderDate"]) == (10248, "1996-07-04T00:00:00Z")


def test_orders_refer_to_what_exists(pages: Pages) -> None:
    customers = {row["CustomerID"]: row for row in records(pages("Customers"))}
    orders = records(pages("Orders"))
    for order in orders:
        customer = customers[order["CustomerID"]]
        assert (order["ShipCity"], order["ShipCountry"]) == (customer["City"], customer["Country"])
        assert 1 <= order["EmployeeID"] <= 9
        assert 1 <= order["ShipVia"] <= 3
    dates = [order["OrderDate"] for order in orders]
    assert dates == sorted(dates)
    assert dates[-1] == "1998-05-06T00:00:00Z"


def test_only_late_orders_are_not_shipped_yet(pages: Pages) -> None:
    waiting = records(pages("Orders", filter="ShippedDate eq null"))
    assert 0 < len(waiting) < 100
    assert min(order["OrderDate"] for order in waiting) > "1998-04-01"


def test_order_lines_are_distinct_products_of_existing_orders(pages: Pages) -> None:
    lines = records(pages("Order_Details"))
    assert 2050 < len(lines) < 2250
    assert len({(line["OrderID"], line["ProductID"]) for line in lines}) == len(lines)
    assert {line["OrderID"] for line in lines} == set(range(10248, 10248 + 830))
    assert {line["ProductID"] for line in lines} == set(range(1, 78))
    assert {line["Discount"] for line in lines} == {0.0, 0.05, 0.1, 0.15, 0.2, 0.25}


def test_every_month_has_london_orders(pages: Pages) -> None:
    london = records(pages("Customers", filter="City eq 'London' and Country eq 'UK'"))
    orders = records(pages("Orders", filter="ShipCity eq 'London'"))
    assert len(london) == 6
    assert len({order["OrderDate"][:7] for order in orders}) == 23


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="key order"),
        pytest.param({"orderby": "OrderDate desc"}, id="equal dates across a page's end"),
        pytest.param({"orderby": "ShipRegion,ShipCity desc"}, id="nulls and texts in the token"),
        pytest.param({"orderby": "ShippedDate desc,Freight"}, id="nulls last, decimals"),
        pytest.param({"filter": "OrderID ge 10248"}, id="filter"),
        pytest.param({"filter": "OrderID ge 0", "orderby": "ShipName"}, id="filter and order"),
        pytest.param({"top": "830"}, id="top beyond a page"),
    ],
)
def test_paging_visits_every_order_once(pages: Pages, options: dict[str, str]) -> None:
    bodies = pages("Orders", **options)
    assert len(bodies) == 5
    ids = [order["OrderID"] for order in records(bodies)]
    assert sorted(ids) == list(range(10248, 10248 + 830))


def test_orderby_sorts_by_several_properties(pages: Pages) -> None:
    rows = records(pages("Orders", orderby="ShipCountry desc, Freight"))
    by_freight = sorted(rows, key=lambda row: row["Freight"])
    assert rows == sorted(by_freight, key=lambda row: row["ShipCountry"], reverse=True)


def test_next_link_is_relative_as_in_the_real_service(client: httpx.Client) -> None:
    link = client.get(ROOT + "Orders").json()["@odata.nextLink"]
    assert link == "Orders?$skiptoken=10447"
    link = client.get(ROOT + "Order_Details").json()["@odata.nextLink"]
    assert link.startswith("Order_Details?$skiptoken=10")


def test_next_link_carries_the_other_options_on(client: httpx.Client) -> None:
    options = {
        "$filter": "ShipCountry ne 'O''Land & Co'",
        "$orderby": "ShipCity",
        "$select": "OrderID,ShipCity",
        "$count": "true",
        "own": "a+b",
    }
    first = client.get(ROOT + "Orders", params={**options, "$skip": "3", "$top": "500"}).json()
    query = parse_qs(urlsplit(first["@odata.nextLink"]).query)
    city, key = first["value"][-1]["ShipCity"], first["value"][-1]["OrderID"]
    expected = {**options, "$top": "300", "$skiptoken": f"'{city}',{key}"}
    assert {name: values[0] for name, values in query.items()} == expected


@pytest.mark.parametrize(
    ("filter_text", "expected"),
    [
        ("OrderID eq 10250", 1),
        ("OrderID gt 10250 and OrderID le 10260", 10),
        ("OrderDate lt 1996-07-05T00:00:00Z", 1),
        ("OrderDate lt 1996-07-05T00:00:00+02:00", 1),
        ("OrderDate lt 1996-07-04T00:00:00Z", 0),
        ("ShipName eq 'it''s and'", 0),
        ("ShippedDate lt null", 0),
        ("OrderID ne null", 830),
        ("ShipVia ge 1.5 and ShipVia lt 1.9", 0),
    ],
)
def test_filter_counts_what_matches(client: httpx.Client, filter_text: str, expected: int) -> None:
    params = {"$filter": filter_text, "$count": "true", "$top": "0"}
    body = client.get(ROOT + "Orders", params=params).json()
    assert (body["@odata.count"], body["value"]) == (expected, [])


def test_null_is_neither_before_nor_after_a_date(pages: Pages) -> None:
    moment = "1997-01-01T00:00:00Z"
    earlier = records(pages("Orders", filter=f"ShippedDate lt {moment}"))
    later = records(pages("Orders", filter=f"ShippedDate ge {moment}"))
    waiting = records(pages("Orders", filter="ShippedDate eq null"))
    assert len(earlier) + len(later) + len(waiting) == 830


def test_booleans_filter(pages: Pages) -> None:
    rows = records(pages("Products", filter="Discontinued eq true"))
    assert 0 < len(rows) < 77
    assert all(row["Discontinued"] is True for row in rows)


def test_select_skip_and_top(client: httpx.Client) -> None:
    params = {"$select": "ShipCity,OrderID", "$skip": "2", "$top": "3"}
    body = client.get(ROOT + "Orders", params=params).json()
    assert [row["OrderID"] for row in body["value"]] == [10250, 10251, 10252]
    assert list(body["value"][0]) == ["ShipCity", "OrderID"]
    assert "@odata.nextLink" not in body


@pytest.mark.parametrize(
    "params",
    [
        {"$filter": "Nope eq 1"},
        {"$filter": "OrderID eq 1 and "},
        {"$filter": "OrderID eq 1 or OrderID eq 2"},
        {"$filter": "OrderID eq 'text'"},
        {"$filter": "OrderDate gt 1998-13-01T00:00:00Z"},
        {"$filter": ""},
        {"$orderby": "Nope"},
        {"$orderby": "OrderID downwards"},
        {"$select": "OrderID,Nope"},
        {"$top": "-1"},
        {"$skip": "many"},
        {"$count": "maybe"},
        {"$skiptoken": "'London',1"},
        {"$skiptoken": "nonsense"},
        {"$expand": "Customer"},
    ],
    ids=str,
)
def test_wrong_query_is_an_odata_error(client: httpx.Client, params: dict[str, str]) -> None:
    response = client.get(ROOT + "Orders", params=params)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == ""
    assert response.json()["error"]["message"]


def test_unknown_entity_set_is_an_odata_error(client: httpx.Client) -> None:
    response = client.get(ROOT + "Invoices")
    assert response.status_code == 404
    assert "Invoices" in response.json()["error"]["message"]


def test_two_servers_give_the_same_answers(serve: Serve, client: httpx.Client) -> None:
    other = serve(today=TODAY)
    for name in (*COUNTS, "Order_Details"):
        assert value_of(client, name) == value_of(other, name) != []


def test_scale_multiplies_orders_and_lines_only(serve: Serve, client: httpx.Client) -> None:
    scaled = serve(scale=3)
    params = {"$count": "true", "$orderby": "OrderID desc", "$top": "1"}
    orders = scaled.get(ROOT + "Orders", params=params).json()
    assert orders["@odata.count"] == 3 * 830
    assert orders["value"][0]["OrderDate"] == "1998-05-06T00:00:00Z"
    lines = scaled.get(ROOT + "Order_Details", params={"$count": "true"}).json()
    assert 6000 < lines["@odata.count"] < 7000
    for name in ("Customers", "Products"):
        assert value_of(scaled, name) == value_of(client, name) != []


def test_archive_answers_in_columns_with_both_ends(weather: Weather) -> None:
    body = weather().json()
    assert body["daily_units"] == {
        "time": "iso8601", "temperature_2m_max": "°C", "precipitation_sum": "mm",
    }  # fmt: skip
    assert list(body["daily"]) == ["time", "temperature_2m_max", "precipitation_sum"]
    assert (body["daily"]["time"][0], body["daily"]["time"][-1]) == ("1997-01-01", "1997-01-31")
    assert {len(column) for column in body["daily"].values()} == {31}
    assert None not in body["daily"]["temperature_2m_max"]
    assert (body["latitude"], body["longitude"], body["elevation"]) == (51.5, -0.1, 23.0)
    assert body["generationtime_ms"] >= 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Europe/London", ("Europe/London", "GMT", 0)),
        ("Asia/Kolkata", ("Asia/Kolkata", "GMT+5.5", 19800)),
        (None, ("GMT", "GMT", 0)),
    ],
)
def test_archive_describes_the_timezone(
    weather: Weather, name: str | None, expected: tuple[str, str, int]
) -> None:
    body = weather(timezone=name).json()
    described = body["timezone"], body["timezone_abbreviation"], body["utc_offset_seconds"]
    assert described == expected


def test_any_window_gives_the_same_days(weather: Weather) -> None:
    month = weather().json()["daily"]
    week = weather(start_date="1997-01-10", end_date="1997-01-16").json()["daily"]
    assert week == {name: column[9:16] for name, column in month.items()}


def test_places_and_days_differ(weather: Weather) -> None:
    london = weather().json()["daily"]["temperature_2m_max"]
    south = weather(latitude=-33.9, longitude=151.2).json()["daily"]["temperature_2m_max"]
    assert len(set(london)) > 10
    assert fmean(south) > fmean(london) + 10


def test_london_follows_the_climate_normals(weather: Weather) -> None:
    names = "temperature_2m_max,temperature_2m_min,temperature_2m_mean,precipitation_sum"
    daily = weather(start_date="1970-01-01", end_date="2019-12-31", daily=names).json()["daily"]
    july = [row for row in zip(*daily.values(), strict=True) if row[0][5:7] == "07"]
    assert fmean(row[1] for row in july) == pytest.approx(23.9, abs=0.5)
    assert fmean(row[2] for row in july) == pytest.approx(14.2, abs=0.5)
    assert fmean(row[4] for row in july) * 31 == pytest.approx(45.8, rel=0.2)
    assert all(row[2] < row[3] < row[1] and row[4] >= 0 for row in july)


def test_the_latest_days_are_null(weather: Weather) -> None:
    start = TODAY - timedelta(days=4)
    daily = weather(start_date=start, end_date=TODAY).json()["daily"]
    assert len(daily["time"]) == 5
    for name in ("temperature_2m_max", "precipitation_sum"):
        assert [value is None for value in daily[name]] == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"latitude": None}, "latitude"),
        ({"latitude": "north"}, "latitude"),
        ({"longitude": "200"}, "Longitude"),
        ({"daily": None}, "daily"),
        ({"daily": "temperature_2m_max,moonlight"}, "moonlight"),
        ({"start_date": None}, "start_date"),
        ({"start_date": "1997-1-1"}, "start_date"),
        ({"start_date": "1997-02-01"}, "End-date"),
        ({"start_date": "1939-12-31"}, "1940-01-01"),
        ({"end_date": str(TODAY + timedelta(days=1))}, "end_date"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"hourly": "rain"}, "hourly"),
    ],
    ids=str,
)
def test_wrong_parameter_is_an_archive_error(
    weather: Weather, changes: dict[str, Any], reason: str
) -> None:
    response = weather(**changes)
    assert response.status_code == 400
    assert response.json()["error"] is True
    assert reason in response.json()["reason"]


@pytest.mark.parametrize(
    ("path", "notice", "status"),
    [
        (ROOT, "@sample.notice", 200),
        (ROOT + "Orders", "@sample.notice", 200),
        (ROOT + "Invoices", "@sample.notice", 404),
        (ROOT + "Orders?$top=x", "@sample.notice", 400),
        ("/v1/archive", "sample_notice", 400),
        ("/nowhere", "sample_notice", 404),
    ],
)
def test_every_answer_says_it_is_generated(
    client: httpx.Client, path: str, notice: str, status: int
) -> None:
    response = client.get(path)
    assert response.status_code == status
    assert response.headers["X-Sample-Data"] == "generated, not from the real service"
    assert "generated" in response.json()[notice]


def test_weather_says_it_is_generated(weather: Weather) -> None:
    assert "generated" in weather().json()["sample_notice"]


def test_home_page_says_so_and_its_examples_work(client: httpx.Client) -> None:
    response = client.get("/")
    assert "generated" in response.text
    assert "X-Sample-Data" in response.headers
    links = [part.split('"')[0] for part in response.text.split('href="')[1:]]
    assert len(links) == 4
    for link in links:
        assert client.get(link.replace("&amp;", "&").replace("&#x27;", "'")).status_code == 200


@pytest.fixture
def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def server(free_port: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "deployments.local.sample_api", "--port", str(free_port)]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    yield process
    process.kill()
    process.wait()


def test_command_serves_silently_and_exits_cleanly(
    server: subprocess.Popen[str], free_port: int, client: httpx.Client
) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{free_port}") as other:
        await_start(other)
        assert value_of(other, "Orders") == value_of(client, "Orders") != []
    server.send_signal(signal.SIGTERM)
    output, _ = server.communicate(timeout=10)
    assert (server.returncode, output) == (0, "")


def test_help_says_the_data_is_generated() -> None:
    command = [sys.executable, "-m", "deployments.local.sample_api", "--help"]
    answer = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "GENERATED" in answer.stdout
