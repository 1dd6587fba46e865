"""What an API said: whether asking again can help, and how long it asks to wait."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from flows.extract.retry_after import Wait, is_exhausted, requested_wait
from flows.redaction import start_of
from flows.source import Rule

PASSING_STATUSES = frozenset({408, 425, 429})
# A server that can't do what it is asked for can't do it later either.
LASTING_STATUSES = frozenset({501, 505})
LIMITED_STATUSES = frozenset({403, 429, 503})
# How GitHub, Google, Salesforce, Meta, AWS and others say in a 403 that they were asked too often.
_LIMIT = re.compile(
    rb"secondary rate limit|abuse detection|too many requests|throttl(ed|ing)"
    rb"|(rate|request|daily)[ _]?limit[ _]?(exceeded|reached)|quota[ _]?exceeded",
    re.IGNORECASE,
)
# RFC 6750, 3.1, and what others call it. A `page token` or a `token at position 5` is none.
_REFUSED_TOKEN = re.compile(
    rb"invalid_token|(invalid|expired) access[ _]token|access[ _]token (has |is )?(expired|invalid)"
    rb"|jwt expired|token_expired|\bexpired_?token",
    re.IGNORECASE,
)
# So much of a body is searched for the words above.
MARKED_BYTES = 1 << 16


@dataclass(frozen=True)
class Response:
    """A complete answer.

    Attributes:
        url: that gave it, without the login.
        location: where it redirects to; None where it does not.
    """

    url: str
    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes
    location: str | None

    @property
    def start(self) -> str:
        """The beginning of the body on one line."""
        return start_of(self.body)

    @property
    def is_success(self) -> bool:
        """Whether the API did what it was asked for."""
        return 200 <= self.status < 300

    @property
    def is_retryable(self) -> bool:
        """Whether asking again can help; some APIs say 403 where they mean 429."""
        if self.status == 403:
            return self._is_limit
        is_server_error = 500 <= self.status < 600 and self.status not in LASTING_STATUSES
        return is_server_error or self.status in PASSING_STATUSES

    @property
    def refuses_token(self) -> bool:
        """Whether a new token may help; some APIs say 400 or 403 where they mean 401."""
        if self.status not in {400, 403}:
            return self.status == 401
        challenge = self.headers.get("WWW-Authenticate", "").encode()
        return any(map(_REFUSED_TOKEN.search, (challenge, self.body[:MARKED_BYTES])))

    @property
    def _is_limit(self) -> bool:
        is_marked = bool(_LIMIT.search(self.body, 0, MARKED_BYTES))
        return is_marked or "Retry-After" in self.headers or bool(is_exhausted(self.headers))

    @property
    def requested_wait(self) -> Wait | None:
        """How long the API asks to wait; None when it says nothing about it."""
        return requested_wait(self.headers, self.status in LIMITED_STATUSES)

    def fits(self, rule: Rule) -> bool:
        """Whether a rule is about this answer."""
        if rule.status not in {None, self.status}:
            return False
        return not rule.body or bool(re.search(rule.body, self.body.decode(errors="replace")))

    def __str__(self) -> str:
        """`answered 503 Service Unavailable: 'closed for repairs'`."""
        return f"answered {self.status} {self.reason}: {self.start!r}"
