"""An API's response: whether a retry can succeed, and how long the API asks to wait."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from flows.extract.retry_after import Wait, is_exhausted, requested_wait
from flows.page import BUSY_STATUSES, HIDDEN_CONTENT
from flows.redaction import start_of
from flows.source import Rule

# The server does not support the request, so a retry can't succeed.
PERMANENT_STATUSES = frozenset({501, 505})
LIMITED_STATUSES = frozenset({403, 429, 503})
# Rate limits in the 403 responses of GitHub, Google, Salesforce, Meta, AWS and others.
_LIMIT = re.compile(
    rb"secondary rate limit|abuse detection|too many requests|throttl(ed|ing)"
    rb"|(rate|request|daily)[ _]?limit[ _]?(exceeded|reached)|quota[ _]?exceeded",
    re.IGNORECASE,
)
# RFC 6750, 3.1, and other wordings. Must not match `page token` or `token at position 5`.
_REFUSED_TOKEN = re.compile(
    rb"invalid_token|(invalid|expired) access[ _]token|access[ _]token (has |is )?(expired|invalid)"
    rb"|jwt expired|token_expired|\bexpired_?token",
    re.IGNORECASE,
)
# Only this much of a body is searched for the words above.
MARKED_BYTES = 1 << 16


@dataclass(frozen=True)
class Response:
    """A complete response.

    Attributes:
        url: of the request, without the login.
        location: the redirect's target; None if it is not a redirect.
        cookies: those that it sets.
        received_bytes: of the body as it came, before it was decompressed.
        asks_to_log_in: whether it redirects to the source's login.
        hides_content: whether no error may quote the body.
    """

    url: str
    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes
    location: str | None
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    received_bytes: int = 0
    asks_to_log_in: bool = False
    hides_content: bool = False

    @property
    def start(self) -> str:
        """The start of the body on one line, redacted."""
        return HIDDEN_CONTENT if self.hides_content else start_of(self.body)

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_retryable(self) -> bool:
        """Whether a retry can succeed; some APIs send 403 where they mean 429."""
        if self.status == 403:
            return self._is_limit
        is_server_error = 500 <= self.status < 600 and self.status not in PERMANENT_STATUSES
        return is_server_error or self.status in BUSY_STATUSES

    @property
    def refuses_token(self) -> bool:
        """Whether a new token may help; some APIs send 400 or 403 where they mean 401."""
        if self.status not in {400, 403}:
            return self.status == 401 or self.asks_to_log_in
        challenge = self.headers.get("WWW-Authenticate", "").encode()
        return any(map(_REFUSED_TOKEN.search, (challenge, self.body[:MARKED_BYTES])))

    @property
    def _is_limit(self) -> bool:
        is_marked = bool(_LIMIT.search(self.body, 0, MARKED_BYTES))
        return is_marked or "Retry-After" in self.headers or bool(is_exhausted(self.headers))

    @property
    def requested_wait(self) -> Wait | None:
        """How long the API asks to wait; None if it does not say."""
        return requested_wait(self.headers, self.status in LIMITED_STATUSES)

    def fits(self, rule: Rule) -> bool:
        """Whether a rule matches this response."""
        if rule.status not in {None, self.status}:
            return False
        return not rule.body or bool(re.search(rule.body, self.body.decode(errors="replace")))

    def __str__(self) -> str:
        """`answered 503 Service Unavailable: 'closed for repairs'`."""
        return f"answered {self.status} {self.reason}: {self.start!r}"
