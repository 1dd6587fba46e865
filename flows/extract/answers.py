"""What an API said: whether asking again can help, and how long it asks to wait."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from time import time

from flows.declaration import Rule
from flows.redaction import start_of

PASSING_STATUSES = frozenset({408, 425, 429})
# A server that can't do what it is asked for can't do it later either.
LASTING_STATUSES = frozenset({501, 505})
LIMITED_STATUSES = frozenset({403, 429, 503})
RESET_HEADERS = ("RateLimit-Reset", "X-RateLimit-Reset")
REMAINING_HEADERS = ("RateLimit-Remaining", "X-RateLimit-Remaining")
# A reset header above this is a moment (Unix time), below it a number of seconds.
FIRST_MOMENT = 1_000_000_000


@dataclass(frozen=True)
class Said:
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
    def is_good(self) -> bool:
        """Whether the API did what it was asked for."""
        return 200 <= self.status < 300

    @property
    def is_passing(self) -> bool:
        """Whether asking again can help; some APIs say 403 where they mean 429."""
        if self.status == 403:
            is_used_up = any(self.headers.get(name) == "0" for name in REMAINING_HEADERS)
            return is_used_up or "Retry-After" in self.headers
        is_server_error = 500 <= self.status < 600 and self.status not in LASTING_STATUSES
        return is_server_error or self.status in PASSING_STATUSES

    @property
    def asked_seconds(self) -> float | None:
        """How long the API asks to wait; None when it says nothing that can be understood.

        Retry-After holds seconds or an HTTP date (RFC 9110, 10.2.3), RateLimit-Reset seconds
        (draft-ietf-httpapi-ratelimit-headers), X-RateLimit-Reset either seconds or a Unix time.
        """
        retry_after = self.headers.get("Retry-After", "").strip()
        if retry_after.isascii() and retry_after.isdecimal():
            return float(retry_after)
        try:
            at = parsedate_to_datetime(retry_after)
        except ValueError:
            return self._reset_seconds if self.status in LIMITED_STATUSES else None
        at = at if at.tzinfo else at.replace(tzinfo=timezone.utc)
        return max(0.0, (at - datetime.now(timezone.utc)).total_seconds())

    @property
    def _reset_seconds(self) -> float | None:
        for name in RESET_HEADERS:
            value = self.headers.get(name, "").strip()
            if value.isascii() and value.replace(".", "", 1).isdecimal():
                number = float(value)
                return max(0.0, number - time()) if number > FIRST_MOMENT else number
        return None

    def fits(self, rule: Rule) -> bool:
        """Whether a rule is about this answer."""
        if rule.status not in {None, self.status}:
            return False
        return not rule.body or bool(re.search(rule.body, self.body.decode(errors="replace")))

    def __str__(self) -> str:
        """`answered 503 Service Unavailable: 'closed for repairs'`."""
        return f"answered {self.status} {self.reason}: {self.start!r}"
