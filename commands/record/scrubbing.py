"""What is replaced in answers before they are written: secrets, personal fields, the API's address.

Each value always gets the same replacement, so that what belongs together still does.
"""

import json
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from commands.record.recording import HOSTS_PATH, ORIGIN
from flows.errors import BadPayloadError
from flows.json_text import json_text
from flows.page import EXACT_NUMBERS
from flows.personal_data import Hashed, Protect, Protection, ReadSecret
from flows.redaction import SHORTEST_IN_ADDRESSES, Secrets, redact

DUMMY = "recorded-"
_PSEUDONYM = re.compile(r"personal-[0-9]+")
_REPLACEMENT = re.compile(rf"{_PSEUDONYM.pattern}|{DUMMY}[\w.-]+|\*+")
_STRING_OR_NUMBER = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*')
# Signed tokens (RFC 7519): whoever has one can log in somewhere.
_JWT = re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}")


def dummy_secret(name: str) -> str:
    """What stands for a secret in recorded answers, and what a replay logs in with."""
    return f"{DUMMY}{name}"


class Scrubbing:
    """The replacements of one recording."""

    def __init__(self, base_url: str, secrets: Mapping[str, str]) -> None:
        """`secrets` are the values that were used, by their names."""
        self._base = urlsplit(base_url).netloc
        self._hosts = {self._base}
        self._replaced = Secrets()
        for name, value in secrets.items():
            for form in (value, *_in_base64(value)):
                self._replaced.add(form, dummy_secret(name))
        self._tokens: dict[str, str] = {}
        self._pseudonyms: dict[str, str] = {}

    def add_host(self, url: str) -> None:
        """Replace the address of this host as well."""
        self._hosts.add(urlsplit(url).netloc)

    def text(self, text: str) -> str:
        """The text without secrets, without long personal values, and without addresses."""
        text = redact(_JWT.sub(self._token, self._replaced.hidden_in(text)))
        for host in sorted(self._hosts, key=len, reverse=True):
            text = self._moved(text, host)
        return text

    def target(self, url: str) -> str:
        """Path and query of an address."""
        return self.text(url).removeprefix(ORIGIN) or "/"

    def value(self, value: Any) -> Any:
        """The same of a value that JSON has."""
        return json.loads(self.text(json.dumps(value)))

    def body(self, text: str, personal: Mapping[str, Protection]) -> str:
        """A body, in JSON or not; the personal fields of JSON are replaced wherever they are."""
        if personal:
            try:
                document = json.loads(text, **EXACT_NUMBERS)
            except ValueError:
                return self.text(text)
            text = json_text(self._without_personal(document, [*personal], [*personal]))
        scrubbed = self.text(text)
        if is_json(scrubbed) or not is_json(text):
            return scrubbed
        # A number is what is replaced, or is part of a longer number by chance.
        return _STRING_OR_NUMBER.sub(self._scalar, text)

    def _scalar(self, match: re.Match[str]) -> str:
        scrubbed = self.text(match[0])
        if match[0].startswith('"') or scrubbed == match[0]:
            return scrubbed
        return f'"{scrubbed}"' if _REPLACEMENT.fullmatch(scrubbed) else match[0]

    def _token(self, match: re.Match[str]) -> str:
        return self._tokens.setdefault(match[0], f"{DUMMY}jwt-{len(self._tokens) + 1}")

    def _moved(self, text: str, host: str) -> str:
        """The text with another address in place of this host's; slashes may be escaped in JSON."""
        path = "" if host == self._base else f"{HOSTS_PATH}{host}"

        def moved(match: re.Match[str]) -> str:
            return f"{ORIGIN}{path}".replace("/", match[1])

        return re.sub(rf"https?:(\\?/)(?:\1){re.escape(host)}(?![\w.:-])", moved, text, flags=re.I)

    def _without_personal(self, value: Any, everywhere: list[str], here: list[str]) -> Any:
        """The value with pseudonyms at these paths, which may begin in any object."""
        if isinstance(value, list):
            return [self._without_personal(each, everywhere, here) for each in value]
        if not isinstance(value, dict):
            return value
        return {
            name: self._pseudonymous(inner)
            if name in here
            else self._without_personal(inner, everywhere, _below(name, here) + everywhere)
            for name, inner in value.items()
        }

    def _pseudonymous(self, value: Any) -> Any:
        """The value with pseudonyms for all that it holds."""
        if isinstance(value, list):
            return [*map(self._pseudonymous, value)]
        if isinstance(value, dict):
            return {name: self._pseudonymous(inner) for name, inner in value.items()}
        if value is None:
            return None
        text = value if isinstance(value, str) else json.dumps(value)
        known = self._pseudonyms.setdefault(text, f"personal-{len(self._pseudonyms) + 1}")
        if len(text) >= SHORTEST_IN_ADDRESSES:
            self._replaced.add(text, known)
        return known


def is_json(text: str) -> bool:
    """Whether a recording can hold the text as JSON."""
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False
    return True


def _in_base64(secret: str) -> Iterator[str]:
    """What base64 of any text with the secret in it contains (RFC 4648, both alphabets)."""
    for before in range(3):
        text = b64encode(bytes(before) + secret.encode()).decode()
        # The first and the last letters depend on what is beside the secret.
        inner = text[(0, 2, 3)[before] : len(text) - (0, 3, 2)[(before + len(secret.encode())) % 3]]
        if len(inner) >= SHORTEST_IN_ADDRESSES:
            yield inner
            yield inner.translate(str.maketrans("+/", "-_"))


def _below(name: str, paths: list[str]) -> list[str]:
    return [path[len(name) + 1 :] for path in paths if path.startswith(f"{name}.")]


@dataclass(frozen=True)
class OnlyPseudonyms(Hashed):
    """Checks that a personal field holds nothing but what a scrubbing put there."""

    field: str = ""

    def function(self, read_secret: ReadSecret) -> Protect:
        """Needs no secret."""
        return self._checked

    def _checked(self, text: str) -> str:
        """The text.

        Raises:
            BadPayloadError: it is none; it is not quoted.
        """
        if _PSEUDONYM.sub("", text) != "" and _leaves(text) - {None} != set():
            raise BadPayloadError(
                f"The personal field {self.field!r} can't be found in the API's answers: they are "
                "not JSON, or call it otherwise. Nothing is recorded of them."
            )
        return text


def _leaves(text: str) -> set[Any]:
    """What a text of JSON holds beside pseudonyms."""
    try:
        left: list[Any] = [json.loads(text)]
    except ValueError:
        return {text}
    found: set[Any] = set()
    while left:
        value = left.pop()
        if isinstance(value, dict | list):
            left += value.values() if isinstance(value, dict) else value
        elif not (isinstance(value, str) and _PSEUDONYM.fullmatch(value)):
            found.add(value)
    return found
