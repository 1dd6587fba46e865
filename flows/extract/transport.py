"""A connection to an API: sends a request, reads the whole response, limits time and size.

Knows nothing of retries, redirects, or what a response means.
"""

import io
import logging
import re
from collections.abc import Callable, Mapping
from contextlib import closing
from ssl import SSLContext
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3

from flows.errors import (
    Answer,
    BadPayloadError,
    ConfigurationError,
    PayloadTooLargeError,
    RefusedLoginError,
)
from flows.extract import url_policy
from flows.extract.deadline import Adapter, check_deadline, deadline
from flows.extract.decompression import (
    DecompressionError,
    TooLargeError,
    TruncatedError,
    decompressed,
)
from flows.extract.response import Response
from flows.page import HttpRequest
from flows.query_params import form_pairs
from flows.source import Source

CHUNK_BYTES = 1 << 16
HEADERS = {
    "Accept": "application/json, */*;q=0.5",
    "Accept-Encoding": "gzip",
    "User-Agent": "elt-pipeline",
}

Sign = Callable[[requests.PreparedRequest], requests.PreparedRequest]
# Gets each request, without its login, with its response; what it returns is used instead.
Watch = Callable[[HttpRequest, Response], Response]

_NON_RETRYABLE = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidHeader,
    requests.exceptions.InvalidJSONError,
)
_TOO_SLOW = (TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError)
_RETRYABLE = (*_TOO_SLOW, TruncatedError, requests.RequestException, urllib3.exceptions.HTTPError)
_NOT_SENT = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)


class NoResponseError(Exception):
    """No usable response; a retry can succeed.

    Attributes:
        was_sent: whether the API may have received the request.
        said: the response that reports the failure, if any.
    """

    def __init__(self, message: str, was_sent: bool = True, said: Response | None = None) -> None:
        super().__init__(message)
        self.was_sent = was_sent
        self.said = said


class _Session(requests.Session):
    """Reads proxies and certificates from the environment once per host, not per request.

    Beside them it has headers and cookies, and no other setting that a request could lack.
    """

    def __init__(self) -> None:
        super().__init__()
        self.headers.update(HEADERS)
        self._own_headers = dict(self.headers)
        self._settings: dict[tuple[str, str], Any] = {}

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """The request with the session's headers and cookies, in half the time of the original."""
        prepared = requests.PreparedRequest()
        prepared.prepare(
            method=request.method,
            url=request.url,
            headers={**self._own_headers, **request.headers},
            data=request.data,
            json=request.json,
            auth=request.auth,
            cookies=self.cookies,
        )
        return prepared

    def merge_environment_settings(self, url: Any, *options: Any) -> Any:
        """The settings of a host; all our requests pass the same options."""
        host = urlsplit(url)[:2]
        if host not in self._settings:
            self._settings[host] = super().merge_environment_settings(url, *options)
        return self._settings[host].copy()

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None; otherwise requests would read a redirect's body without a time or size limit."""


class Connection:
    """The connections of one thread to a source's hosts, kept open between requests."""

    def __init__(self, source: Source, watch: Watch | None = None) -> None:
        self._watch = watch
        self._timeouts = (source.connect_timeout_seconds, source.read_timeout_seconds)
        self._max_body_bytes = source.max_body_bytes
        self._session = _Session()
        self._adapter = Adapter()
        for scheme in url_policy.PORTS:
            self._session.mount(f"{scheme}://", self._adapter)

    def show(self, tls: SSLContext | None) -> None:
        """Show the certificate of these settings to all hosts, if there is one."""
        self._adapter.tls = tls

    def close(self) -> None:
        self._session.close()

    def send(
        self,
        request: HttpRequest,
        sign: Sign,
        within_seconds: float,
        form: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request, signed last, and read the response; follow no redirect.

        `sign` gets the final address. It is always passed: without it, requests would log in with
        the credentials that a .netrc has for the host.

        Raises:
            NoResponseError: there was no complete response in time.
            ConfigurationError: the request can't be sent as it is.
            PayloadTooLargeError: the body is larger than the source's `max_body_bytes`.
            BadPayloadError: the body can't be decompressed.
        """
        if within_seconds <= 0:
            raise NoResponseError("no response in time (redirects took all of it)")
        connect, read = (min(seconds, within_seconds) for seconds in self._timeouts)
        try:
            with (
                deadline(within_seconds),
                closing(
                    self._session.request(
                        request.method,
                        request.url,
                        headers=dict(request.headers),
                        data=_form(request) if form is None else form,
                        json=request.body if request.sends == "json" else None,
                        auth=sign,
                        timeout=(connect, read),
                        allow_redirects=False,
                        stream=True,
                    )
                ) as response,
            ):
                found = self._read(request.url, response)
                return found if self._watch is None else self._watch(request, found)
        except (OSError, urllib3.exceptions.HTTPError, UnicodeError, TruncatedError) as error:
            problem = _translate(request.url, error, shown=self._adapter.tls is not None)
        # Raised out here, it has no context: errors of requests quote the whole address.
        raise problem

    def _read(self, url: str, response: requests.Response) -> Response:
        location = response.headers["Location"] if response.is_redirect else None
        answer = Answer(url, response.status_code, "", 1)
        try:
            received = self._received(response)
            body = self._body(response, received)
        except TooLargeError as error:
            raise PayloadTooLargeError(
                f"{url}: the body has more than {self._max_body_bytes:,} bytes, the source's "
                "max_body_bytes. Request smaller pages, or raise it.",
                answer,
            ) from error
        except DecompressionError as error:
            raise BadPayloadError(
                f"{url}: the body can't be unpacked: {error}. Ask the API's owner.", answer
            ) from error
        return Response(
            url,
            response.status_code,
            response.reason,
            response.headers,
            body,
            None if location is None else url_policy.from_header(location),
            response.cookies.get_dict(),
            len(received),
        )

    def _body(self, response: requests.Response, received: bytes) -> bytes:
        """The decompressed body; for an error response that can't be decompressed, the raw body."""
        try:
            coding = response.headers.get("Content-Encoding", "")
            return decompressed(received, coding, self._max_body_bytes, check_deadline)
        except DecompressionError:
            if response.ok:
                raise
            return received

    def _received(self, response: requests.Response) -> bytes:
        received = io.BytesIO()
        while part := response.raw.read1(CHUNK_BYTES, decode_content=False):
            received.write(part)
            if received.tell() > self._max_body_bytes:
                raise TooLargeError
        return received.getvalue()


def _form(request: HttpRequest) -> list[tuple[str, str]] | None:
    """The fields of a request that sends a form."""
    return form_pairs(request.url, request.body) if request.sends == "form" else None


def _translate(url: str, error: Exception, shown: bool) -> Exception:
    """Translate an error of requests or urllib3; `shown` says whether it saw a certificate of ours.

    With TLS 1.3, a server refuses that after the handshake (RFC 8446, 4.4.2): by then the client
    sends its request, and often hears no reason, only that the connection is closed.
    """
    reason = _reason(error)
    if isinstance(error, _NON_RETRYABLE) or not isinstance(error, _RETRYABLE):
        return ConfigurationError(
            f"{url} can't be requested: {error}. Correct the source's address."
        )
    if "CERTIFICATE_VERIFY_FAILED" in str(reason):
        return ConfigurationError(
            f"{url} has a certificate that is not trusted: {reason}. Correct the source's address, "
            "or name the bundle that trusts it in REQUESTS_CA_BUNDLE."
        )
    if _REFUSED_CERTIFICATE.search(str(reason)):
        return RefusedLoginError(
            f"{url} refuses the client's certificate: {reason}. Correct the source's login: "
            "ClientCertificate names the secret that holds it."
        )
    name = type(error).__name__
    if isinstance(error, _TOO_SLOW):
        problem = f"no response in time ({name})"
    else:
        problem = f"the connection failed ({name}: {reason})"
        if shown and url.startswith("https:"):
            problem += (
                "; if this goes on, the API may refuse the client's certificate: ClientCertificate "
                "names the secret that holds it"
            )
    return NoResponseError(problem, was_sent=not isinstance(reason, _NOT_SENT))


def _reason(error: BaseException) -> BaseException:
    """The innermost error that requests and urllib3 wrapped."""
    inner = [getattr(error, "reason", None), *error.args]
    wrapped = next((found for found in inner if isinstance(found, BaseException)), None)
    return error if wrapped is None else _reason(wrapped)


# What a server says of the certificate that it was shown, or not shown (RFC 8446, 6.2).
_REFUSED_CERTIFICATE = re.compile("ALERT_(BAD_CERTIFICATE|CERTIFICATE_|UNKNOWN_CA|ACCESS_DENIED)")
_QUERY = re.compile(r"\?[^\s\"')]*")


def _without_queries(record: logging.LogRecord) -> bool:
    """Remove queries, which may contain keys, from urllib3's log lines."""
    record.msg, record.args = _QUERY.sub("?…", record.getMessage()), ()
    record.exc_info = None
    return True


for _name in ("urllib3.connection", "urllib3.connectionpool"):
    logging.getLogger(_name).addFilter(_without_queries)
