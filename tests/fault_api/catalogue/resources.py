"""Which path of the catalogue answers what."""

from dataclasses import dataclass, field

from tests.fault_api.catalogue import families, formats, logins, styles
from tests.fault_api.catalogue.items import items
from tests.fault_api.catalogue.jobs import Jobs
from tests.fault_api.catalogue.listing import Listing
from tests.fault_api.exchange import Answer, Ask, AskError, refusal

AREAS = ("styles", "formats", "login", "oauth", "parents", "jobs")


@dataclass(frozen=True)
class Catalogue:
    """What is served; a fault serves another listing, or other terms for a new token."""

    listing: Listing = field(default_factory=lambda: Listing(items()))
    tokens: logins.Tokens = field(default_factory=logins.Tokens)
    jobs: Jobs = field(default_factory=Jobs)
    token_requests: int | None = None
    token_seconds: int = logins.TOKEN_SECONDS

    def answer(self, ask: Ask) -> Answer:
        """The answer to a request below one of the AREAS."""
        try:
            return self._answer(ask)
        except AskError as error:
            return refusal(error)

    def _answer(self, ask: Ask) -> Answer:
        match ask.path.strip("/").split("/"):
            case ["styles", name]:
                return styles.answer(name, ask, self.listing)
            case ["formats", name]:
                return formats.answer(name, self.listing.rows)
            case ["login", name]:
                logins.check(name, ask, self.tokens)
                return styles.answer("next_url", ask, self.listing)
            case ["oauth", "token"]:
                return logins.token(ask, self.tokens, self.token_requests, self.token_seconds)
            case ["oauth", "session"]:
                return logins.session(ask, self.tokens)
            case ["jobs", *job]:
                return self.jobs.answer(ask, job, self.listing.rows)
            case ["parents", *parent]:
                return families.answer(ask, parent)
        raise AskError(f"There is nothing at {ask.path}.", 404)


def has(path: str) -> bool:
    """Whether the path belongs to the catalogue."""
    return path.strip("/").split("/")[0] in AREAS
