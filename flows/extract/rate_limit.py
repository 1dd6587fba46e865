"""Rate limit, shared by all loads of a source in this process."""

import threading
from collections import deque
from time import monotonic, sleep

from flows.source import Rate


class RateLimiter:
    """Lets at most `rate.requests` through in any `rate.seconds`; thread-safe."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._last: deque[float] = deque(maxlen=rate.requests)
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Block until the next request may be sent.

        A waiting thread holds the lock: the time a request is sent counts, not the time it was due.
        """
        with self._lock:
            if len(self._last) == self._rate.requests:
                sleep(max(0.0, self._last[0] + self._rate.seconds - monotonic()))
            self._last.append(monotonic())


_limiters: dict[tuple[str, Rate], RateLimiter] = {}
_lock = threading.Lock()


def rate_limiter_of(source: str, rate: Rate) -> RateLimiter:
    """The limiter that all clients of a source share."""
    with _lock:
        return _limiters.setdefault((source, rate), RateLimiter(rate))
