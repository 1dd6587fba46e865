"""Reading an API that is a function, with the real client: over loopback, or without a socket."""

import json
from collections.abc import Callable
from email.message import Message
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from requests.structures import CaseInsensitiveDict

from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.extract.response import Response
from flows.load import checkpoints
from flows.page import HttpRequest, Page, Resume
from flows.source import Partition, Resource, Source, Window
from tests.http_servers import Answer, Asked

Api = Callable[[Asked], Answer]

ANY_TIME = Window()


class MemoryClient(Client):
    """A client whose requests are answered by a function."""

    def __init__(self, source: Source, api: Api) -> None:
        super().__init__(source)
        self._api = api

    def _send(self, request: HttpRequest, left_seconds: float) -> Response:
        parts = urlsplit(request.url)
        asked = Asked(f"{parts.path}?{parts.query}" if parts.query else parts.path)
        asked.method, asked.headers = request.method, Message()
        asked.body = b"" if request.body is None else json.dumps(request.body).encode()
        for name, value in {"Host": parts.netloc, **request.headers}.items():
            asked.headers[name] = value
        answer = self._api(asked)
        headers = CaseInsensitiveDict(answer.headers)
        return Response(request.url, answer.status, "", headers, answer.body, None)


def read(
    url: str,
    resource: Resource,
    api: Api | None = None,
    resume: Resume | None = None,
    window: Window = ANY_TIME,
    source: Source | None = None,
) -> list[Page]:
    """All pages of a resource below the URL, from `api` or from whatever server listens there."""
    source = source or Source("shop", url, (resource,))
    with MemoryClient(source, api) if api else Client(source) as client:
        return list(read_pages(client, source, resource, Partition(), window, resume))


def rows(pages: list[Page]) -> list[Any]:
    """The records of pages, as the load layer finds them."""
    return [row for page in pages if page.find is not None for row in page.find(page)]


def stored(resume: Resume | None) -> Resume | None:
    """A resume point as the ledger gives it back: as `jsonb`, which sorts names."""
    if resume is None:
        return None
    return checkpoints.resume_from(json.loads(checkpoints.resume_json(resume)))


def asked_params(asked: Asked) -> dict[str, str]:
    """The query of a request; each name is there once."""
    pairs = parse_qsl(urlsplit(asked).query, keep_blank_values=True)
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)
