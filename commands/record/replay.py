"""A source that has its recorded answers as its API: the app that gives them, and its address."""

import json
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from commands.record.recording import ORIGIN, Answer, Recording, place_of, posted_in
from flows.extract.auth import ApiKey, Basic, Bearer, OAuth2, SessionCookie
from flows.source import Accounts, Login, Source

LOGIN_PATH = "/_login"
TOKEN = {"access_token": "recorded-access-token", "token_type": "Bearer", "expires_in": 3600}
COOKIE = "session=recorded-session"


class Replay:
    """An ASGI app that answers as the API did; what was not recorded, with 501."""

    def __init__(self, source: Source, recordings: Mapping[str, Recording]) -> None:
        self._login_params = frozenset(login.param for login in source.logins if login.param)
        self._answers = [answer for each in recordings.values() for answer in each.answers]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        response = self._response(request, await request.body())
        await response(scope, receive, send)

    def _response(self, request: Request, body: bytes) -> Response:
        if request.url.path == LOGIN_PATH:
            return Response(json.dumps(TOKEN), headers={"Set-Cookie": COOKIE})
        found = self.find(request, body)
        if found is None:
            text = f"{request.method} {request.url.path} is not recorded."
            return Response(text, HTTPStatus.NOT_IMPLEMENTED, media_type="text/plain")
        return _response(found, str(request.base_url).rstrip("/"))

    def find(self, request: Request, body: bytes) -> Answer | None:
        """The recorded answer to a request."""
        target = request.scope["raw_path"].decode()
        if query := request.scope["query_string"].decode():
            target += f"?{query}"
        place = place_of(target, self._login_params)
        posted = posted_in(body, request.headers.get("content-type", ""))
        headers = dict(request.headers)
        return next(
            (
                answer
                for answer in self._answers
                if answer.answers(request.method, place, headers, posted)
            ),
            None,
        )


def _response(answer: Answer, url: str) -> Response:
    def at_home(text: str) -> str:
        escaped = ORIGIN.replace("/", r"\/")
        return text.replace(ORIGIN, url).replace(escaped, url.replace("/", r"\/"))

    headers = {name: at_home(value) for name, value in answer.headers.items()}
    body = at_home(answer.content.decode(errors="surrogatepass"))
    return Response(body.encode(errors="surrogatepass"), answer.status, headers)


def moved(source: Source, url: str, base_path: str) -> Source:
    """The source with its recorded answers as its API, at an address without a slash at its end.

    It requests one page at a time. Logins that need a real key are replaced by a token.
    """
    login: Any = source.login
    if isinstance(login, Accounts):
        kept = {name: _all_kept(its, url) for name, its in login.logins.items()}
        login = replace(login, by_account=kept)
    else:
        login = _all_kept(source.logins, url) or None
    return replace(
        source, base_url=f"{url}{base_path}", login=login, hosts=(), rate=None, concurrency=1
    )


def _all_kept(logins: tuple[Login, ...], url: str) -> tuple[Login, ...]:
    return tuple(_kept(login, url) for login in logins)


def _kept(login: Login, url: str) -> Login:
    if isinstance(login, OAuth2):
        return cast(Login, replace(login, token_url=f"{url}{LOGIN_PATH}", refresh_token=""))
    if isinstance(login, SessionCookie):
        return cast(Login, replace(login, login_url=f"{url}{LOGIN_PATH}"))
    if isinstance(login, ApiKey | Basic | Bearer):
        return login
    return Bearer(login.secret)
