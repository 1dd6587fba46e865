"""What can go wrong, named by what the reader must do about it.

Knows nothing of HTTP, Postgres or Prefect, so that every layer can raise and catch the same few
types. A message names the thing, the value and the remedy: it is shown to people as it is.
"""

from dataclasses import dataclass

from flows.redaction import redact


@dataclass(frozen=True)
class Answer:
    """What an API said before it was given up.

    Attributes:
        url: that was asked.
        status: None where there was no answer.
        start: the beginning of the body.
        attempts: how often it was asked.
    """

    url: str
    status: int | None
    start: str
    attempts: int

    def __post_init__(self) -> None:
        """Keep secrets out: the login may stand in the address, and be repeated in the body."""
        object.__setattr__(self, "url", redact(self.url))
        object.__setattr__(self, "start", redact(self.start))


class EltError(Exception):
    """A load or a build that did not succeed; use one of the kinds below."""

    def __init__(self, message: str, answer: Answer | None = None) -> None:
        super().__init__(redact(message))
        self.answer = answer


class UnavailableError(EltError):
    """Retry it: the API or the database did not answer in time. Committed rows are kept."""


class ConfigurationError(EltError):
    """Fix the configuration: trying again without a change ends the same way."""


class RefusedLoginError(ConfigurationError):
    """Fix the credentials: the other side knows us not, or does not let us in."""


class NotFoundError(ConfigurationError):
    """Fix the address: there is nothing there (any more)."""


class BadRequestError(ConfigurationError):
    """Fix the request: the API does not understand it."""


class BadPayloadError(EltError):
    """Ask the API's owner: the answer is not what the API promises."""


class PayloadTooLargeError(BadPayloadError):
    """Ask for smaller pages, or raise the source's `max_body_bytes`."""


class BuildError(EltError):
    """Look at the named dbt nodes: a model or a test failed, so its marts are not to be trusted."""
