"""Errors, named by the recovery they need.

Knows nothing of HTTP, Postgres or Prefect, so every layer can use the same few types. A message
names the thing, the value and the remedy, and is shown to users unchanged.
"""

from dataclasses import dataclass

from flows.redaction import redact
from flows.traffic import NO_TRAFFIC


@dataclass(frozen=True)
class Answer:
    """The last response before the client gave up.

    Attributes:
        url: of the request.
        status: None where there was no response.
        start: the start of the body.
        attempts: the number of requests made.
    """

    url: str
    status: int | None
    start: str
    attempts: int

    def __post_init__(self) -> None:
        """Redact secrets: the login may be in the address, and repeated in the body."""
        object.__setattr__(self, "url", redact(self.url))
        object.__setattr__(self, "start", redact(self.start))


class EltError(Exception):
    """A load or a build that failed; raise one of the subclasses below.

    Attributes:
        traffic: the requests since the last page that was read, to be counted by the load.
    """

    def __init__(self, message: str, answer: Answer | None = None) -> None:
        super().__init__(redact(message))
        self.answer = answer
        self.traffic = NO_TRAFFIC


class UnavailableError(EltError):
    """Retry it: the API or the database did not respond in time. Committed rows are kept."""


class ConfigurationError(EltError):
    """Fix the configuration: a retry without a change fails again."""


class RefusedLoginError(ConfigurationError):
    """Fix the credentials: the other side rejects them, or they lack a permission."""


class NotFoundError(ConfigurationError):
    """Fix the address: nothing exists there (any more)."""


class BadRequestError(ConfigurationError):
    """Fix the request: the API rejects it."""


class OtherRequestError(BadRequestError):
    """Begin again: the request is not the one whose pages an incomplete load has read."""


class BadPayloadError(EltError):
    """Ask the API's owner: the response is not what the API promises."""


class JobFailedError(BadPayloadError):
    """Correct the request, or ask the API's owner: the job that was submitted has failed."""


class PayloadTooLargeError(BadPayloadError):
    """Request smaller pages, or raise the source's `max_body_bytes`."""


class BuildError(EltError):
    """Look at the named dbt nodes: a model or a test failed, so don't trust its marts."""
