"""One session to one API: timeouts, retries under a total wait, errors named by recovery."""

import logging
import random
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from time import sleep
from types import TracebackType

import requests
from typing_extensions import Self

from flows.declaration import Page, Source
from flows.errors import ConfigurationError, EltError, RefusedLoginError, UnavailableError

log = logging.getLogger(__name__)

RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 60.0


class Client:
    """Fetches pages for one load; its waits add up against the source's `max_wait_seconds`."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._session = requests.Session()
        self._session.headers.update({"Accept": "application/json", "User-Agent": "elt-pipeline"})
        self._waited_seconds = 0.0

    def __enter__(self) -> Self:
        """Open nothing: connections are made by the first request."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the session's connections."""
        self._session.close()

    def get(self, url: str) -> Page:
        """Fetch one page, trying again while that can help.

        Raises:
            UnavailableError: the API did not answer well within the wait that is allowed.
            RefusedLoginError: status 401 or 403.
            ConfigurationError: any other status that a retry does not mend, or no usable address.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                response = self._send(url)
            except requests.RequestException as error:
                self._wait(attempt, url, _connection_problem(url, error), None)
                continue
            if response.status_code in RETRIED_STATUSES:
                self._wait(attempt, url, _answer(response), _retry_after_seconds(response))
                continue
            if not response.ok:
                raise _refusal(response, self._source.name)
            return Page(response.content, url, response.headers.get("Content-Type", "no type"))

    def _send(self, url: str) -> requests.Response:
        timeouts = (self._source.connect_timeout_seconds, self._source.read_timeout_seconds)
        return self._session.get(url, timeout=timeouts)

    def _wait(self, attempt: int, url: str, problem: str, asked_seconds: float | None) -> None:
        """Sleep before the next attempt: as long as the server asks, else with full jitter.

        A server that asks for no wait at all gets the jitter too, or this would never end.
        """
        ceiling = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (attempt - 1))
        seconds = asked_seconds or random.SystemRandom().uniform(0, ceiling)
        if self._waited_seconds + seconds > self._source.max_wait_seconds:
            asked = "" if not asked_seconds else f" It asks to wait {asked_seconds:.0f} s."
            raise UnavailableError(
                f"{url}: {problem} (attempt {attempt}, waited {self._waited_seconds:.0f} s of at "
                f"most {self._source.max_wait_seconds:.0f} s).{asked} Run it again later: what was "
                "committed is kept."
            )
        log.warning("%s: %s; attempt %d follows in %.1f s", url, problem, attempt + 1, seconds)
        self._waited_seconds += seconds
        sleep(seconds)


def _connection_problem(url: str, error: requests.RequestException) -> str:
    """What to say of a failed attempt; raises at once what no further attempt mends."""
    hopeless = (
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        requests.exceptions.MissingSchema,
        requests.TooManyRedirects,
    )
    if isinstance(error, hopeless):
        raise ConfigurationError(f"{url} can't be asked: {error}. Correct the source's address.")
    kind = "no answer in time" if isinstance(error, requests.Timeout) else "the connection failed"
    return f"{kind} ({type(error).__name__})"


def _answer(response: requests.Response) -> str:
    start = " ".join(response.content[:200].decode(errors="replace").split())
    return f"answered {response.status_code} {response.reason}: {start!r}"


def _refusal(response: requests.Response, source: str) -> EltError:
    said = f"{response.url} {_answer(response)}."
    if response.status_code in {401, 403}:
        return RefusedLoginError(f"{said} Correct the credentials of source {source!r}.")
    if response.status_code in {404, 410}:
        return ConfigurationError(f"{said} Correct the base URL or path of source {source!r}.")
    return ConfigurationError(f"{said} Correct the request that source {source!r} makes.")


def _retry_after_seconds(response: requests.Response) -> float | None:
    """Retry-After as seconds or as an HTTP date (RFC 9110, 10.2.3); None when it says nothing."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=timezone.utc)
    return max(0.0, (at - datetime.now(timezone.utc)).total_seconds())
