"""Staying below an API's limit: one clock for all loads of a source in this process."""

import threading
from collections import deque
from time import monotonic, sleep

from flows.source import Rate


class RateLimiter:
    """Lets at most `rate.requests` through in any `rate.seconds`; safe to share by threads."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._last: deque[float] = deque(maxlen=rate.requests)
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when the next request may be sent.

        Who waits keeps the others waiting: what counts is when a request left, not when it was due.
        """
        with self._lock:
            if len(self._last) == self._rate.requests:
                sleep(max(0.0, self._last[0] + self._rate.seconds - monotonic()))
            self._last.append(monotonic())


_paces: dict[tuple[str, Rate], RateLimiter] = {}
_lock = threading.Lock()


def rate_limiter_of(source: str, rate: Rate) -> RateLimiter:
    """The pace that all clients of a source share."""
    with _lock:
        return _paces.setdefault((source, rate), RateLimiter(rate))
