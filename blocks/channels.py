"""Which environment variable holds the address of which notification block.

The variable NOTIFY_ON_CALL_URL is the channel `on-call`, whose block is `apprise/on-call`. Must not
import Prefect, because `make up` must not.
"""

import re
from collections.abc import Mapping

_VARIABLE = re.compile(r"NOTIFY_([A-Z0-9]+(?:_[A-Z0-9]+)*)_URL")
_BLOCK = re.compile(r"\b(?:apprise|custom-webhook|slack-webhook)/([a-z0-9-]+)")


def variable(channel: str) -> str:
    """The variable that a channel's block is created from."""
    return f"NOTIFY_{channel.upper().replace('-', '_')}_URL"


def addresses(environment: Mapping[str, str]) -> dict[str, str]:
    """The addresses in the environment, by channel."""
    return {
        found[1].lower().replace("_", "-"): url
        for name, url in sorted(environment.items())
        if (found := _VARIABLE.fullmatch(name)) and url
    }


def named(text: str) -> list[str]:
    """The channels whose blocks a text names, e.g. prefect.yaml."""
    return _BLOCK.findall(text)
