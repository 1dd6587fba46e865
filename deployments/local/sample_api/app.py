"""The sample API over HTTP: its routes, its errors, and the notice that the data is generated.

Knows neither how the data is generated nor how queries are evaluated.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from html import escape
from urllib.parse import quote, urlencode

import orjson
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.local.sample_api import northwind, open_meteo
from deployments.local.sample_api.odata import Page, QueryError, read_page
from deployments.local.sample_api.open_meteo import ParameterError

NOTICE = "generated, not from the real service"
ODATA_ROOT = "/V4/Northwind/Northwind.svc"
ARCHIVE_PATH = "/v1/archive"
ARCHIVE_EXAMPLE = (
    f"{ARCHIVE_PATH}?latitude=51.5&longitude=-0.13&start_date=1997-01-01&end_date=1997-01-31"
    "&daily=temperature_2m_max,precipitation_sum&timezone=Europe%2FLondon"
)
EXAMPLES = (
    f"{ODATA_ROOT}/",
    f"{ODATA_ROOT}/Orders?$filter=ShipCity eq 'London'&$orderby=OrderDate desc&$count=true",
    f"{ODATA_ROOT}/Order_Details?$top=5",
    ARCHIVE_EXAMPLE,
)
HOME = (
    "<!doctype html><title>Sample API</title><h1>Sample API</h1>"
    "<p>All data here is <strong>generated</strong> from a fixed seed. It keeps the contracts of "
    "the Northwind OData service and of the Open-Meteo archive; none of it comes from them.</p>"
    "<ul>{items}</ul>"
)


class NoticeMiddleware:
    """Marks the data as generated in every response's headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_notice(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Sample-Data"] = NOTICE
            await send(message)

        await self.app(scope, receive, send_with_notice)


def create_app(scale: int = 1, today: date | None = None) -> Starlette:
    """The app with its data; `today` is the current UTC date at each request unless given."""
    app = Starlette(
        routes=[
            Route("/", home),
            Route(ODATA_ROOT, list_entity_sets),
            Route(f"{ODATA_ROOT}/", list_entity_sets),
            Route(f"{ODATA_ROOT}/{{name}}", read_entity_set),
            Route(ARCHIVE_PATH, read_archive),
        ],
        middleware=[Middleware(NoticeMiddleware)],
        exception_handlers=dict.fromkeys((HTTPException, QueryError, ParameterError), on_error),
    )
    app.state.entity_sets = northwind.generate(scale)
    app.state.today = today
    return app


def home(request: Request) -> Response:
    links = (
        f'<li><a href="{escape(quote(url, safe="/?&=$,%"))}">{escape(url)}</a></li>'
        for url in EXAMPLES
    )
    return HTMLResponse(HOME.format(items="".join(links)))


def list_entity_sets(request: Request) -> Response:
    names = request.app.state.entity_sets
    value = [{"name": name, "kind": "EntitySet", "url": name} for name in names]
    return odata({"@odata.context": _context(request), "value": value})


def read_entity_set(request: Request) -> Response:
    name = request.path_params["name"]
    entity_set = request.app.state.entity_sets.get(name)
    if entity_set is None:
        raise HTTPException(404, f"Resource not found for the segment '{name}'.")
    page = read_page(entity_set, _parameters(request))
    selected = f"({','.join(page.properties)})" if "$select" in request.query_params else ""
    return odata(_envelope(name, f"{_context(request)}#{name}{selected}", page))


def read_archive(request: Request) -> Response:
    today = request.app.state.today or datetime.now(UTC).date()
    return archive(open_meteo.answer(_parameters(request), today))


def _envelope(name: str, context: str, page: Page) -> dict[str, object]:
    """The next link is relative, as in the real service."""
    envelope: dict[str, object] = {"@odata.context": context}
    if page.count is not None:
        envelope["@odata.count"] = page.count
    envelope["value"] = page.rows
    if page.next_options is not None:
        options = urlencode(page.next_options, safe="$,':", quote_via=quote)
        envelope["@odata.nextLink"] = f"{name}?{options}"
    return envelope


def _context(request: Request) -> str:
    return f"{str(request.base_url).rstrip('/')}{ODATA_ROOT}/$metadata"


def odata(body: dict[str, object], status: int = 200) -> Response:
    """Dates have the service's format: 1996-07-04T00:00:00Z."""
    content = orjson.dumps({**body, "@sample.notice": NOTICE}, option=orjson.OPT_UTC_Z)
    headers = {"OData-Version": "4.0"}
    return Response(content, status, headers, "application/json;odata.metadata=minimal")


def archive(body: dict[str, object], status: int = 200) -> Response:
    content = orjson.dumps({**body, "sample_notice": NOTICE})
    return Response(content, status, media_type="application/json")


def on_error(request: Request, error: Exception) -> Response:
    """The error body of the path's service; wrong queries have status 400."""
    status = error.status_code if isinstance(error, HTTPException) else 400
    message = error.detail if isinstance(error, HTTPException) else str(error)
    if request.url.path.startswith(ODATA_ROOT):
        return odata({"error": {"code": "", "message": message}}, status)
    return archive({"error": True, "reason": message}, status)


def _parameters(request: Request) -> dict[str, str]:
    """The query parameters; a repeated one becomes a comma-separated list."""
    given = request.query_params
    return {name: ",".join(given.getlist(name)) for name in given}
