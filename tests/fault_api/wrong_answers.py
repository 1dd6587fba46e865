"""Faults in what is said: refusals, redirects, and bodies that are not what they should be.

They reach the client in time and whole, as HTTP wants it.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from tests.fault_api.exchange import JSON_TYPE, Answer, AskError, as_json
from tests.fault_api.turn import Turn

STATUSES = (400, 401, 403, 404, 408, 410, 413, 422, 425, 429, 500, 502, 503, 504)
EXPIRED = 'Bearer realm="sample", error="invalid_token", error_description="The token expired"'
HTML = (
    b"<!doctype html><html><head><title>Maintenance</title></head>"
    b"<body><h1>We will be back soon</h1></body></html>"
)


def _status(status: int) -> Callable[..., None]:
    """The fault that is named like the status; it says how long to wait where it is told to."""

    def refuse(turn: Turn, *, header: str = "none", seconds: float = 1.0) -> None:
        headers = _wait_headers(header, seconds)
        if status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = EXPIRED
        document = {"error": HTTPStatus(status).phrase, "status": status}
        turn.send(as_json(document, status, headers))

    return refuse


def _wait_headers(header: str, seconds: float) -> dict[str, str]:
    """The wait in one of the ways that APIs use; rounded up, never shorter than `seconds`."""
    delay, moment = math.ceil(seconds), math.ceil(time.time() + seconds)
    iso = datetime.fromtimestamp(moment, UTC).isoformat()
    known = {
        "none": {},
        "retry_after": {"Retry-After": str(delay)},
        "retry_after_date": {"Retry-After": formatdate(moment, usegmt=True)},
        "ratelimit_reset": {"RateLimit-Remaining": "0", "RateLimit-Reset": str(delay)},
        "x_ratelimit_reset": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(moment)},
        "retry_after_decimal": {"Retry-After": f"{delay:.1f}"},
        "retry_after_unit": {"Retry-After": f"{delay}s"},
        "retry_after_twice": {"Retry-After": f"{delay}, {delay}"},
        "retry_after_iso": {"Retry-After": iso},
        "retry_after_moment": {"Retry-After": str(moment)},
        "ratelimit": {"RateLimit": f'"default";r=0;t={delay}'},
        "ratelimit_old": {"RateLimit": f"limit=100, remaining=0, reset={delay}"},
        "x_rate_limit_reset": {"X-Rate-Limit-Reset": str(moment)},
        "x_ratelimit_reset_ms": {"X-RateLimit-Reset": str(1000 * moment)},
    }
    if header not in known:
        raise AskError(f"There is no header {header!r}; there are {', '.join(known)}.", 501)
    return known[header]


def answer(
    turn: Turn, *, status: int = 200, body: Any = None, headers: Mapping[str, str] | None = None
) -> None:
    """Whatever the plan says: a text as it is, anything else in JSON."""
    content = body if isinstance(body, str) else json.dumps(body)
    turn.send(Answer(content.encode(), status, {"Content-Type": JSON_TYPE, **(headers or {})}))


def empty(turn: Turn) -> None:
    """Status 200 and no byte."""
    turn.send(replace(turn.answer(), body=b""))


def no_content(turn: Turn) -> None:
    """Status 204."""
    turn.send(Answer(b"", 204, {}))


def html(turn: Turn, *, content_type: str = "text/html; charset=utf-8") -> None:
    """A web page with status 200, as proxies and firewalls send it."""
    turn.send(Answer(HTML, headers={"Content-Type": content_type}))


def html_as_json(turn: Turn) -> None:
    """The same, but it claims to be JSON."""
    html(turn, content_type=JSON_TYPE)


def wrong_type(turn: Turn, *, content_type: str = "text/plain; charset=utf-8") -> None:
    """The right body under another Content-Type."""
    right = turn.answer()
    turn.send(replace(right, headers={**right.headers, "Content-Type": content_type}))


def cut_json(turn: Turn) -> None:
    """The first half of the body, announced as the whole."""
    right = turn.answer()
    turn.send(replace(right, body=right.body[: len(right.body) // 2]))


def redirect(turn: Turn, *, to: str = "same_host", location: str = "", status: int = 302) -> None:
    """Lead the client to one of the `destinations`, or to any `location`."""
    headers = {"Location": destination(turn, to, location)}
    turn.send(Answer(b"", status, headers))


def destination(turn: Turn, to: str, location: str) -> str:
    """A place to be led to.

    Raises:
        AskError: when there is no place of that name.
    """
    target = turn.ask.target
    host, _, port = turn.ask.base.removeprefix("http://").rpartition(":")
    other = "localhost" if host != "localhost" else "127.0.0.1"
    hop = turn.ask.whole("hop", 0) + 1
    known = {
        "same_host": target,
        "other_host": f"http://{other}:{port}{target}",
        "file": "file:///etc/passwd",
        "link_local": "http://169.254.169.254/latest/meta-data/",
        "endless": turn.ask.link(hop=hop),
    }
    if not location and to not in known:
        raise AskError(f"There is no destination {to!r}; there are {', '.join(known)}.", 501)
    return location or known[to]


FAULTS: Mapping[str, Callable[..., None]] = {
    **{str(status): _status(status) for status in STATUSES},
    "204": no_content,
    "answer": answer,
    "empty": empty,
    "html": html,
    "html_as_json": html_as_json,
    "wrong_type": wrong_type,
    "cut_json": cut_json,
    "redirect": redirect,
}
