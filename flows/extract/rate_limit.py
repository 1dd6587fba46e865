"""Limits that all loads of a source in this process share: requests per time, and at once."""

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


class Pause:
    """A pause that an API asked one client for; the other clients of the load keep it as well.

    Attributes:
        ends_at: on the clock `time.monotonic`; in the past if there is no pause.
    """

    def __init__(self) -> None:
        self.ends_at = 0.0

    def begin(self, seconds: float) -> float:
        """Start or extend the pause; returns when it ends."""
        self.ends_at = max(self.ends_at, monotonic() + seconds)
        return self.ends_at


_limiters: dict[tuple[str, Rate], RateLimiter] = {}
_slots: dict[tuple[str, int], threading.Semaphore] = {}
_lock = threading.Lock()


def rate_limiter_of(source: str, rate: Rate) -> RateLimiter:
    """The limiter that all clients of a source share."""
    with _lock:
        return _limiters.setdefault((source, rate), RateLimiter(rate))


def slots_of(source: str, concurrency: int) -> threading.Semaphore:
    """The requests that all clients of a source may have under way at once."""
    with _lock:
        return _slots.setdefault((source, concurrency), threading.Semaphore(concurrency))
