"""A client of one API: login, rate limit, redirects, retries within a total wait, named errors.

It follows redirects itself, so the login goes only to addresses that may see it.
"""

import copy
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from time import monotonic, sleep
from types import TracebackType
from typing import Self

from requests import PreparedRequest

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
from flows.extract.auth import ReadSecret, secret_from_environment
from flows.extract.credentials import Credentials
from flows.extract.rate_limit import Pause, rate_limiter_of, slots_of
from flows.extract.response import Response
from flows.extract.tokens import ShareToken
from flows.extract.transport import Connection, NoResponseError, Watch
from flows.page import HttpRequest, Page
from flows.personal_data import PersonalData
from flows.redaction import remember_signatures, without_queries
from flows.source import Partition, Resource, Rule, Source
from flows.traffic import Meter, Traffic

log = logging.getLogger(__name__)

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 60.0
MOST_REDIRECTS = 10
# A pause ends so soon once the client is closed.
LONGEST_NAP_SECONDS = 1.0
# Of so many accounts a thread keeps connections open.
MOST_ACCOUNTS = 10
# They repeat a POST unchanged (RFC 9110, 15.4.8 and 15.4.9); others turn it into a GET.
KEEPING_REDIRECTS = frozenset({307, 308})


class StoppedError(Exception):
    """Another thread stopped the client: nobody waits for its response."""


class Client:
    """Fetches pages for one load; all its waits count against the source's `max_wait_seconds`.

    It belongs to one thread; other threads of the load use a `sibling`.

    Attributes:
        waited_seconds: how much of `max_wait_seconds` is used up.
        meter: counts its requests.
    """

    def __init__(
        self,
        source: Source,
        read_secret: ReadSecret = secret_from_environment,
        turn: Callable[[], None] = lambda: None,
        share_token: ShareToken | None = None,
        watch: Watch | None = None,
    ) -> None:
        """`turn` is called before each request, in addition to the source's own rate limit.

        `share_token` renews refresh tokens; without it, logins that have one are refused. `watch`
        sees each response (`flows.extract.transport`).
        """
        self._read_secret = read_secret
        self._personal: dict[str, PersonalData] = {}
        self._source = source
        self._watch = watch
        self._connection = Connection(source, watch)
        self._public: Connection | None = None
        its = () if source.accounts else source.logins
        self._credentials = Credentials(its, read_secret, self._connection, share_token)
        self._rate_limiter = rate_limiter_of(source.name, source.rate) if source.rate else None
        self._slots = slots_of(source.name, source.concurrency)
        self._pause = Pause()
        self._kept_until = 0.0
        self._turn = turn
        self.waited_seconds = 0.0
        self.meter = Meter()
        self._is_stopped = self._is_closed = False
        self._is_sibling = False
        self._owner = repr(source.name)
        self._of_accounts: dict[str, Client] = {}
        self._accounts: dict[str, Client] = {}
        for account, its in (source.accounts.logins if source.accounts else {}).items():
            self._accounts[account] = own = self.sibling()
            own._credentials = Credentials(its, read_secret, own._connection, share_token)
            own._pause = Pause()
            own._owner = f"{source.name!r}, account {account!r}"

    def of(self, partition: Partition) -> "Client":
        """The client for a partition's requests: itself, or one that logs in as its account.

        Raises:
            ConfigurationError: the source has several accounts, and the partition names none.
        """
        if self._source.accounts is None:
            return self
        account = self._source.accounts.account_of(partition)
        if account not in self._of_accounts:
            if len(self._of_accounts) == MOST_ACCOUNTS:
                self._of_accounts.pop(next(iter(self._of_accounts))).close()
            self._of_accounts[account] = self._accounts[account].sibling()
        return self._of_accounts[account]

    def personal(self, resource: Resource) -> PersonalData:
        """What protects the resource's personal fields: one for all of its partitions.

        Raises:
            RefusedLoginError: the secret of a hash is missing.
        """
        if resource.name not in self._personal:
            found = PersonalData(resource.name, resource.personal, self._read_secret)
            self._personal[resource.name] = found
        return self._personal[resource.name]

    def sibling(self) -> Self:
        """A client for another thread: the same login, limits and pauses, its own connections.

        It counts its requests itself.
        """
        other = copy.copy(self)
        other.meter = Meter()
        other._connection = Connection(self._source, self._watch)
        other._public = None
        other._of_accounts = {}
        other._is_sibling = True
        return other

    def stop(self) -> None:
        """Let the thread that uses it send no further request: `get` raises StoppedError."""
        self._is_stopped = True

    def close(self) -> None:
        """Close the connections, and name personal fields that no record had."""
        self._is_closed = True
        self._connection.close()
        if self._public is not None:
            self._public.close()
        for client in self._of_accounts.values():
            client.close()
        if not self._is_sibling:
            for client in self._accounts.values():
                client.close()
            for personal in self._personal.values():
                personal.warn()

    def __enter__(self) -> Self:
        """Open nothing: the first request connects."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def learn_secret(self) -> None:
        """Read the login's secrets before a source's own function can quote them.

        Raises:
            RefusedLoginError: a secret is missing.
        """
        self._credentials.learn()

    def get(
        self,
        wanted: HttpRequest | str,
        rules: Iterable[Rule] = (),
        is_repeatable: bool = True,
    ) -> Page:
        """Fetch one page, with retries while they can help.

        Raises:
            UnavailableError: the API did not respond successfully within the allowed wait.
            RefusedLoginError: status 401 or its equivalent, even with a new token; or a 403 that is
                not a rate limit.
            NotFoundError: status 404 or 410.
            BadRequestError: any other status that a retry does not fix.
            ConfigurationError: an address that can't or may not be requested.
            PayloadTooLargeError: the body is larger than `max_body_bytes`.
            BadPayloadError: the body can't be decompressed.
        """
        request = wanted if isinstance(wanted, HttpRequest) else HttpRequest(wanted)
        rules = tuple(rules)
        for attempt in count(1):
            began_at = monotonic()
            try:
                outcome = self._attempt(request, rules)
                if isinstance(outcome, Page):
                    return outcome
                self.waited_seconds += monotonic() - began_at
                self._wait(attempt, request, outcome, is_repeatable)
            except EltError as error:
                answer = error.answer or Answer(request.url, None, "", attempt)
                error.answer = replace(answer, attempts=attempt)
                raise
        raise AssertionError("count never ends")

    def admit(self, request: HttpRequest) -> HttpRequest:
        """A request that the API linked to, without the login it may repeat.

        Raises:
            ConfigurationError: the address may not be requested.
            BadPayloadError: the login can't be removed from it.
        """
        request = self._credentials.unsigned(request)
        url_policy.check(request.url, self._source, request.public_hosts)
        return request

    def pause(self, seconds: float) -> None:
        """Wait for something other than a failure, outside of `max_wait_seconds`.

        Raises:
            StoppedError: the client was closed or stopped meanwhile.
        """
        while not (self._is_stopped or self._is_closed):
            if seconds <= 0:
                return
            sleep(min(seconds, LONGEST_NAP_SECONDS))
            seconds -= LONGEST_NAP_SECONDS
        raise StoppedError

    def _attempt(self, request: HttpRequest, rules: Sequence[Rule]) -> Page | NoResponseError:
        """The page, or the reason for a retry."""
        try:
            page = self._judge(request, self._respond(request), rules)
            page.max_bytes = self._source.max_body_bytes
            return page
        except NoResponseError as error:
            return error

    def _respond(self, request: HttpRequest) -> Response:
        """The response; if the token was refused, that to a request with a new token."""
        within_seconds = self._source.answer_timeout_seconds
        signed_with = self._credentials.prepare(within_seconds)
        self._connection.show(self._credentials.tls())
        response = self._send(request, within_seconds)
        is_public = url_policy.is_listed(response.url, request.public_hosts)
        if response.refuses_token and not is_public and self._credentials.renew(signed_with):
            self._credentials.prepare(within_seconds)
            response = self._send(request, within_seconds)
        return replace(response, hides_content=True) if request.hides_answer else response

    def _send(self, request: HttpRequest, left_seconds: float) -> Response:
        """Send a request and follow redirects."""
        hop = request
        for _ in range(MOST_REDIRECTS + 1):
            self._wait_for_turn()
            with self._slots:
                if self._is_stopped:
                    raise StoppedError
                began_at = monotonic()
                self.meter.add(Traffic(requests=1))
                response = self._exchange(hop, left_seconds)
            self.meter.add(Traffic(received_bytes=response.received_bytes))
            if response.location is None:
                return response
            if self._credentials.is_login_page(_target(hop, response)):
                return replace(response, asks_to_log_in=True)
            hop = self._redirect(hop, response)
            left_seconds -= monotonic() - began_at
        raise ConfigurationError(
            f"{request.url} is redirected more than {MOST_REDIRECTS} times. Correct the source's "
            "address."
        )

    def _exchange(self, hop: HttpRequest, left_seconds: float) -> Response:
        """Send a request to one host: with the login, or if it is a public one, without anything.

        The address of a public one often has a signature in it, which is as good as a login.
        """
        if not url_policy.is_listed(hop.url, hop.public_hosts):
            return self._connection.send(hop, self._sign, left_seconds)
        url_policy.check_any(hop.url, has_login=True)
        remember_signatures(hop.url)
        self._public = self._public or Connection(self._source, self._watch)
        return self._public.send(replace(hop, headers={}), lambda unsigned: unsigned, left_seconds)

    def _wait_for_turn(self) -> None:
        began_at = monotonic()
        self._keep_pause()
        self._turn()
        if self._rate_limiter is not None:
            self._rate_limiter.wait()
        self.meter.add(Traffic(waited_seconds=monotonic() - began_at))

    def _keep_pause(self) -> None:
        """Wait for the end of a pause that the API asked another client for."""
        if self._pause.ends_at > self._kept_until:
            self._kept_until = self._pause.ends_at
            sleep(max(0.0, self._kept_until - monotonic()))

    def _sign(self, request: PreparedRequest) -> PreparedRequest:
        url_policy.check(str(request.url), self._source)
        return self._credentials(request)

    def _redirect(self, request: HttpRequest, response: Response) -> HttpRequest:
        following = replace(request, url=_target(request, response))
        if request.method == "POST" and response.status not in KEEPING_REDIRECTS:
            raise ConfigurationError(
                f"{request.url} answers a POST with a redirect ({response.status}) to "
                f"{without_queries(following.url)}. Correct the source's address."
            )
        return self._credentials.unsigned(following)

    def _judge(self, request: HttpRequest, response: Response, rules: Sequence[Rule]) -> Page:
        """Turn a response into a page or an error, by the rules and its status."""
        rule = next((rule for rule in rules if response.fits(rule)), None)
        if rule is None:
            if response.is_retryable:
                raise NoResponseError(str(response), said=response)
            if not response.is_success:
                raise self._refusal(request, response)
            return _page(request, response, is_empty=response.status == 204)
        if rule.then == "retry":
            raise NoResponseError(str(response), said=response)
        if rule.then == "fail":
            is_error = response.status >= 400
            kind = type(self._refusal(request, response)) if is_error else BadPayloadError
            message = rule.message or "A rule of the source treats this as a failure."
            raise _error(kind, request, f"{response}. {message}", response)
        is_accepted = rule.then == "accept"
        return _page(request, response, not is_accepted, rule.then == "stop", is_accepted)

    def _refusal(self, request: HttpRequest, response: Response) -> EltError:
        status = 401 if response.refuses_token else response.status
        kind, remedy = _REMEDIES.get(status, _OTHER_REMEDY)
        if url_policy.is_listed(response.url, request.public_hosts):
            kind, remedy, status = BadRequestError, _PUBLIC_REMEDY, response.status
        text = f"{response}. {remedy.format(source=self._owner, status=status)}"
        return _error(kind, request, text, response)

    def _wait(
        self, attempt: int, request: HttpRequest, failure: NoResponseError, is_repeatable: bool
    ) -> None:
        """Sleep before the next attempt: as long as the API requests, or with full jitter.

        A requested wait of zero, or one that is over, also gets the jitter; otherwise the retries
        would never end.
        """
        response = failure.said
        if failure.was_sent and not is_repeatable:
            remedy = "A POST is not retried unless the resource declares is_repeatable=True."
            raise _error(UnavailableError, request, f"{failure}. {remedy}", response)
        requested = response.requested_wait if response else None
        quoted = f" {requested.said}" if requested else ""
        ceiling = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (attempt - 1))
        own_seconds = random.SystemRandom().uniform(0, ceiling)
        seconds = (requested.seconds if requested else 0) or own_seconds
        if self.waited_seconds + seconds > self._source.max_wait_seconds:
            message = (
                f"{failure} (attempt {attempt}, waited {self.waited_seconds:.0f} s of at most "
                f"{self._source.max_wait_seconds:.0f} s).{quoted} Run it again later: "
                "committed rows are kept."
            )
            raise _error(UnavailableError, request, message, response)
        problem = f"{request.url}: {failure}"
        log.warning("%s; attempt %d follows in %.1f s.%s", problem, attempt + 1, seconds, quoted)
        self.waited_seconds += seconds
        self.meter.add(Traffic(retries=1, waited_seconds=seconds))
        if requested:
            self._kept_until = self._pause.begin(seconds)
        sleep(seconds)


def _target(request: HttpRequest, response: Response) -> str:
    return url_policy.resolve_link(request.url, response.location or "")


def _page(
    request: HttpRequest,
    response: Response,
    is_empty: bool = False,
    is_last: bool = False,
    is_accepted: bool = False,
) -> Page:
    return Page(
        response.body,
        response.url,
        response.headers.get("Content-Type", "no type"),
        request=request,
        headers=response.headers,
        is_empty=is_empty,
        is_last=is_last,
        is_accepted=is_accepted,
        status=response.status,
    )


def _error(
    kind: type[EltError], request: HttpRequest, text: str, response: Response | None
) -> EltError:
    answer = Answer(request.url, None, "", 1)
    if response is not None:
        answer = Answer(response.url, response.status, response.start, 1)
    return kind(f"{request.url}: {text}", answer)


_REMEDIES: Mapping[int, tuple[type[EltError], str]] = {
    401: (RefusedLoginError, "Correct the credentials of source {source}."),
    403: (
        RefusedLoginError,
        "Correct the credentials of source {source}. If this is a rate limit, give the "
        'resource Rule("retry", status=403, body="…") with words of this response.',
    ),
    404: (NotFoundError, "Correct the base URL or path of source {source}."),
    410: (NotFoundError, "Correct the base URL or path of source {source}."),
    413: (BadRequestError, "Make source {source} request less at a time."),
}
_PUBLIC_REMEDY = (
    "This host gets no login from source {source}, only the address that the API sent. If that is "
    "valid for a short time only, name {status} in the job's `expired`; or ask the API's owner."
)
_OTHER_REMEDY = (BadRequestError, "Correct the request that source {source} makes.")
