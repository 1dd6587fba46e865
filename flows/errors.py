"""What can go wrong, named by what the reader must do about it.

Knows nothing of HTTP, Postgres or Prefect, so that every layer can raise and catch the same few
types. A message names the thing, the value and the remedy: it is shown to people as it is.
"""


class EltError(Exception):
    """A load or a build that did not succeed; use one of the kinds below."""


class UnavailableError(EltError):
    """Retry it: the API or the database did not answer in time. Committed rows are kept."""


class ConfigurationError(EltError):
    """Fix the configuration: trying again without a change ends the same way."""


class RefusedLoginError(ConfigurationError):
    """Fix the credentials: the other side knows us not, or does not let us in."""


class BadPayloadError(EltError):
    """Ask the API's owner: the answer is not what the API promises."""


class BuildError(EltError):
    """Look at the named dbt nodes: a model or a test failed, so its marts are not to be trusted."""
