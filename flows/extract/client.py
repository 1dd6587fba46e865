"""One client of one API: login, pace, redirects, retries under a total wait, named errors.

Redirects are followed here, so that the login goes only to addresses that may see it.
"""

import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from time import monotonic, sleep
from types import TracebackType

from requests import PreparedRequest
from typing_extensions import Self

from flows.errors import (
    Answer,
    BadPayloadError,
    BadRequestError,
    ConfigurationError,
    EltError,
    NotFoundError,
    RefusedLoginError,
    UnavailableError,
)
from flows.extract import url_policy
from flows.extract.auth import Credentials, ReadSecret, secret_from_environment
from flows.extract.rate_limit import rate_limiter_of
from flows.extract.response import Response
from flows.extract.transport import Connection, NoResponseError
from flows.page import HttpRequest, Page
from flows.source import Rule, Source

log = logging.getLogger(__name__)

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 60.0
MOST_REDIRECTS = 10
# They repeat a POST as it is (RFC 9110, 15.4.8 and 15.4.9); others make a GET of it.
KEEPING_REDIRECTS = frozenset({307, 308})


class Client:
    """Fetches pages for one load; what it waits adds up against the source's `max_wait_seconds`."""

    def __init__(
        self,
        source: Source,
        read_secret: ReadSecret = secret_from_environment,
        turn: Callable[[], None] = lambda: None,
    ) -> None:
        """`turn` is called before each request, besides the source's own rate."""
        self._source = source
        self._connection = Connection(source)
        self._credentials = Credentials(source.login, read_secret, self._connection)
        self._pace = rate_limiter_of(source.name, source.rate) if source.rate else None
        self._turn = turn
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
        """Close the connections."""
        self._connection.close()

    def learn_secret(self) -> None:
        """Know the login's secret before a source's own function can quote it.

        Raises:
            RefusedLoginError: when there is no such secret.
        """
        self._credentials.learn()

    def get(
        self,
        wanted: HttpRequest | str,
        rules: Iterable[Rule] = (),
        is_repeatable: bool = True,
    ) -> Page:
        """Fetch one page, trying again while that can help.

        Raises:
            UnavailableError: the API did not answer well within the wait that is allowed.
            RefusedLoginError: status 401, or what means it, also with a new token; or a 403 that is
                no limit.
            NotFoundError: status 404 or 410.
            BadRequestError: any other status that a retry does not mend.
            ConfigurationError: an address that can't or may not be asked.
            PayloadTooLargeError: the body is larger than `max_body_bytes`.
            BadPayloadError: the body can't be unpacked.
        """
        request = wanted if isinstance(wanted, HttpRequest) else HttpRequest(wanted)
        rules = tuple(rules)
        for attempt in count(1):
            began_at = monotonic()
            try:
                outcome = self._attempt(request, rules)
                if isinstance(outcome, Page):
                    return outcome
                self._waited_seconds += monotonic() - began_at
                self._wait(attempt, request, outcome, is_repeatable)
            except EltError as error:
                answer = error.answer or Answer(request.url, None, "", attempt)
                error.answer = replace(answer, attempts=attempt)
                raise
        raise AssertionError("count never ends")

    def admit(self, request: HttpRequest) -> HttpRequest:
        """A request that the API led to, without the login that it may repeat there.

        Raises:
            ConfigurationError: when it leads to an address that may not be asked.
            BadPayloadError: when the login can't be taken out of it.
        """
        request = self._credentials.unsigned(request)
        url_policy.check(request.url, self._source)
        return request

    def _attempt(self, request: HttpRequest, rules: Sequence[Rule]) -> Page | NoResponseError:
        """The page, or why to ask again."""
        try:
            return self._judge(request, self._ask(request), rules)
        except NoResponseError as error:
            return error

    def _ask(self, request: HttpRequest) -> Response:
        """The answer; where a token was refused, the one with a new token."""
        within_seconds = self._source.answer_timeout_seconds
        self._credentials.prepare(within_seconds)
        said = self._send(request, within_seconds)
        if said.refuses_token and self._credentials.renew():
            self._credentials.prepare(within_seconds)
            said = self._send(request, within_seconds)
        return said

    def _send(self, request: HttpRequest, left_seconds: float) -> Response:
        """Send, and follow redirects."""
        hop = request
        for _ in range(MOST_REDIRECTS + 1):
            self._turn()
            if self._pace is not None:
                self._pace.wait()
            began_at = monotonic()
            said = self._connection.send(hop, self._sign, left_seconds)
            if said.location is None:
                return said
            hop = self._redirected(hop, said)
            left_seconds -= monotonic() - began_at
        raise ConfigurationError(
            f"{request.url} is redirected more than {MOST_REDIRECTS} times. Correct the source's "
            "address."
        )

    def _sign(self, request: PreparedRequest) -> PreparedRequest:
        url_policy.check(str(request.url), self._source)
        return self._credentials(request)

    def _redirected(self, request: HttpRequest, said: Response) -> HttpRequest:
        following = replace(request, url=url_policy.resolve_link(request.url, said.location or ""))
        if request.method == "POST" and said.status not in KEEPING_REDIRECTS:
            raise ConfigurationError(
                f"{request.url} answers a POST with a redirect ({said.status}) to {following.url}. "
                "Correct the source's address."
            )
        return self._credentials.unsigned(following)

    def _judge(self, request: HttpRequest, said: Response, rules: Sequence[Rule]) -> Page:
        """What an answer means."""
        rule = next((rule for rule in rules if said.fits(rule)), None)
        if rule is None:
            if said.is_retryable:
                raise NoResponseError(str(said), said=said)
            if not said.is_success:
                raise self._refusal(request, said)
            return _page(request, said, is_empty=said.status == 204)
        if rule.then == "retry":
            raise NoResponseError(str(said), said=said)
        if rule.then == "fail":
            kind = BadPayloadError if said.status < 400 else type(self._refusal(request, said))
            message = rule.message or "A rule of the source says that this is a failure."
            raise _error(kind, request, f"{said}. {message}", said)
        is_accepted = rule.then == "accept"
        return _page(request, said, not is_accepted, rule.then == "stop", is_accepted)

    def _refusal(self, request: HttpRequest, said: Response) -> EltError:
        status = 401 if said.refuses_token else said.status
        kind, remedy = _REMEDIES.get(status, _OTHER_REMEDY)
        text = f"{said}. {remedy.format(source=self._source.name)}"
        return _error(kind, request, text, said)

    def _wait(
        self, attempt: int, request: HttpRequest, failure: NoResponseError, is_repeatable: bool
    ) -> None:
        """Sleep before the next attempt: as long as the API asks, else with full jitter.

        One that asks for no wait at all, or for one that is over, gets the jitter too, or this
        would never end.
        """
        said = failure.said
        if failure.was_sent and not is_repeatable:
            remedy = "A POST is not sent again unless the resource says is_repeatable=True."
            raise _error(UnavailableError, request, f"{failure}. {remedy}", said)
        asked = said.requested_wait if said else None
        asked_so = f" {asked.said}" if asked else ""
        ceiling = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (attempt - 1))
        own_seconds = random.SystemRandom().uniform(0, ceiling)
        seconds = (asked.seconds if asked else 0) or own_seconds
        if self._waited_seconds + seconds > self._source.max_wait_seconds:
            message = (
                f"{failure} (attempt {attempt}, waited {self._waited_seconds:.0f} s of at most "
                f"{self._source.max_wait_seconds:.0f} s).{asked_so} Run it again later: what was "
                "committed is kept."
            )
            raise _error(UnavailableError, request, message, said)
        said_so = f"{request.url}: {failure}"
        log.warning("%s; attempt %d follows in %.1f s.%s", said_so, attempt + 1, seconds, asked_so)
        self._waited_seconds += seconds
        sleep(seconds)


def _page(
    request: HttpRequest,
    said: Response,
    is_empty: bool = False,
    is_last: bool = False,
    is_accepted: bool = False,
) -> Page:
    return Page(
        said.body,
        said.url,
        said.headers.get("Content-Type", "no type"),
        request=request,
        headers=said.headers,
        is_empty=is_empty,
        is_last=is_last,
        is_accepted=is_accepted,
    )


def _error(
    kind: type[EltError], request: HttpRequest, text: str, said: Response | None
) -> EltError:
    url, status, start = (said.url, said.status, said.start) if said else (request.url, None, "")
    return kind(f"{request.url}: {text}", Answer(url, status, start, 1))


_REMEDIES: Mapping[int, tuple[type[EltError], str]] = {
    401: (RefusedLoginError, "Correct the credentials of source {source!r}."),
    403: (
        RefusedLoginError,
        "Correct the credentials of source {source!r}. If the API was only asked too often, give "
        'the resource Rule("retry", status=403, body="…") with words of this answer.',
    ),
    404: (NotFoundError, "Correct the base URL or path of source {source!r}."),
    410: (NotFoundError, "Correct the base URL or path of source {source!r}."),
    413: (BadRequestError, "Let source {source!r} ask for less at a time."),
}
_OTHER_REMEDY = (BadRequestError, "Correct the request that source {source!r} makes.")
