"""Takes down what an API answers, while a source is loaded from it.

Keeps everything in memory: `scrubbing` decides what may be written.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from flows.extract.response import Response
from flows.page import HttpRequest
from flows.query_params import form_pairs
from flows.source import Source


class NotedHeaders(Mapping[str, str]):
    """Headers, and the names of those that were read."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers
        self._read: set[str] = set()

    def __getitem__(self, name: str) -> str:
        value = self._headers[name]
        self._read.add(name.lower())
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._headers)

    def __len__(self) -> int:
        return len(self._headers)

    def read(self) -> dict[str, str]:
        """Those that were read, in alphabetical order."""
        return {name: self._headers[name] for name in sorted(self._read)}


class Recorder:
    """The requests of one resource with their responses; of a repeated request, the last one.

    Attributes:
        taken: by the text of the request.
        size_bytes: of their bodies.
    """

    def __init__(self, source: Source) -> None:
        self._login_urls = {login_url(login) for login in source.logins}
        self.taken: dict[str, tuple[HttpRequest, Response]] = {}
        self.size_bytes = 0

    def watch(self, request: HttpRequest, response: Response) -> Response:
        """Take down a response, unless it is that of a login."""
        if request.url in self._login_urls:
            return response
        response = replace(response, headers=NotedHeaders(response.headers))
        self.taken[str(request)] = request, response
        self.size_bytes += len(response.body)
        return response


def login_url(login: Any) -> str:
    """The address at which a login exchanges its secret; empty if it does not."""
    return getattr(login, "token_url", "") or getattr(login, "login_url", "")


def posted_by(request: HttpRequest) -> Any:
    """What a request posts: JSON, or the names and values of a form."""
    if request.body is None:
        return None
    if request.sends == "form":
        return [list(pair) for pair in form_pairs(request.url, request.body)]
    return request.body
