"""Finds secrets in the files that Prefect would store and show in plain text."""

import re
from collections.abc import Iterator

from deployments.check.located_yaml import Problem, YamlNode

NAMES = re.compile(
    r"password|passwd|secret|credential|(?:^|_)token|(?:api|access|private)_?key"
    r"|(?:^|_)(?-i:KEY)$",
    re.IGNORECASE,
)
_BLOCK = re.compile(r"\{\{\s*prefect\.blocks\.")
_PASSWORD_IN_URL = re.compile(r"://[^/\s:@{]*:(?!\{\{)[^/\s@]+@")
_REMEDY = (
    "Prefect stores it in plain text and shows it in its UI. Keep it in a block (`make deploy` "
    "creates blocks from .env), which the flow reads when it runs."
)


def stored_secrets(node: YamlNode) -> Iterator[Problem]:
    """Secrets below a node that Prefect stores unchanged: job variables or parameters."""
    for name, scalar in node.scalars():
        if not isinstance(scalar.value, str) or not scalar.value:
            continue
        if _BLOCK.search(scalar.value):
            yield Problem(scalar.line, f"{name}: a block's value does not belong here: {_REMEDY}")
        elif NAMES.search(name):
            yield Problem(scalar.line, f"{name}: a secret does not belong here: {_REMEDY}")


def passwords_in_urls(node: YamlNode) -> Iterator[Problem]:
    """Addresses below a node that contain a password; the problem does not repeat it."""
    for name, scalar in node.scalars():
        if isinstance(scalar.value, str) and _PASSWORD_IN_URL.search(scalar.value):
            yield Problem(scalar.line, f"{name}: the address contains a password: {_REMEDY}")


def shown(name: str, value: object) -> str:
    """A value in printable form: short, and redacted if its name is that of a secret."""
    if isinstance(value, str) and NAMES.search(name):
        return "'…'"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
