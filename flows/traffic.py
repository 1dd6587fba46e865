"""What the requests of a load cost; passes from `flows.extract` to `flows.load`."""

from dataclasses import dataclass
from threading import Lock


@dataclass(frozen=True)
class Traffic:
    """Numbers of an API's requests; each is a column of `elt.loads`.

    Attributes:
        requests: how many were sent, with retries and redirects; without those for a login's token.
        received_bytes: of the responses' bodies, as they came (compressed).
        retries: how many requests repeated one that had failed.
        waited_seconds: how long requests waited for the rate limit, for a pause that the API asked
            for, and before retries; the sum over those that wait at the same time.
    """

    requests: int = 0
    received_bytes: int = 0
    retries: int = 0
    waited_seconds: float = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        """The sums."""
        return Traffic(
            self.requests + other.requests,
            self.received_bytes + other.received_bytes,
            self.retries + other.retries,
            self.waited_seconds + other.waited_seconds,
        )

    def shown(self) -> dict[str, float]:
        """The numbers by their names, without fractions that nobody reads."""
        return {**vars(self), "waited_seconds": round(self.waited_seconds, 1)}

    def __str__(self) -> str:
        """`12 requests, 34,567 bytes, 1 retries, 30.0 s waited`."""
        return (
            f"{self.requests} requests, {self.received_bytes:,} bytes, {self.retries} retries, "
            f"{self.waited_seconds:.1f} s waited"
        )


NO_TRAFFIC = Traffic()


class Meter:
    """Adds up the requests of several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._sum = NO_TRAFFIC

    def add(self, traffic: Traffic) -> None:
        with self._lock:
            self._sum += traffic

    def take(self) -> Traffic:
        """What was added since the last call."""
        with self._lock:
            taken, self._sum = self._sum, NO_TRAFFIC
        return taken
