"""A turn: one request, the API that can answer it, and the wire that leads back to the client."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message

from tests.fault_api.catalogue import resources
from tests.fault_api.catalogue.resources import Catalogue
from tests.fault_api.exchange import Answer, Ask, AskError
from tests.fault_api.wire import Wire


@dataclass
class Api:
    """The API without a server: the catalogue as it is now, and the app for the rest.

    Attributes:
        is_alone: whether the app answers the catalogue's paths, too.
    """

    app: ASGIApp
    catalogue: Catalogue
    is_alone: bool = False
    untouched: Catalogue = field(init=False)

    def __post_init__(self) -> None:
        """Remember what to go back to."""
        self.untouched = self.catalogue

    def restore(self) -> None:
        """Serve the untouched catalogue again; tokens keep what was done to them."""
        self.catalogue = self.untouched


@dataclass(frozen=True)
class Turn:
    """What a fault acts on."""

    ask: Ask
    api: Api
    wire: Wire

    def answer(self, catalogue: Catalogue | None = None) -> Answer:
        """What the API says when all goes well; or what it says with another catalogue."""
        if not self.api.is_alone and resources.has(self.ask.path):
            return (catalogue or self.api.catalogue).answer(self.ask)
        return asyncio.run(call(self.api.app, self.ask))

    def send(self, answer: Answer) -> None:
        """Send an answer as it ought to be sent."""
        self.wire.send(answer)

    def only_below(self, *paths: str) -> None:
        """Refuse a fault for a path where it would change nothing.

        Raises:
            AskError: with status 501, when the path is below none of these.
        """
        if not any(self.ask.path.startswith(path) for path in paths):
            text = f"This fault is for paths below {' or '.join(paths)}, not for {self.ask.path}."
            raise AskError(text, 501)


async def call(app: ASGIApp, ask: Ask) -> Answer:
    """Ask an ASGI app that no server runs (https://asgi.readthedocs.io/en/latest/specs/www.html)."""
    parts = urlsplit(ask.target)
    messages: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": ask.body, "more_body": False}

    async def send(message: Message) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": ask.method,
        "scheme": "http",
        "path": ask.path,
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "root_path": "",
        "headers": [
            (name.encode(), value.encode("latin-1")) for name, value in ask.headers.items()
        ],
    }
    await app(scope, receive, send)
    return _answer(messages)


def _answer(messages: Iterable[Message]) -> Answer:
    start, *parts = messages
    headers = {name.decode().title(): value.decode("latin-1") for name, value in start["headers"]}
    headers.pop("Content-Length", None)
    return Answer(b"".join(part.get("body", b"") for part in parts), start["status"], headers)
