"""Keeping secrets out of texts: error messages, logs, and whatever else quotes an API."""

import html
import json
import re
from dataclasses import replace

from flows.errors import EltError

SHORTEST_SECRET = 4
# A shorter one is too like an ordinary word to be searched for in addresses.
SHORTEST_IN_ADDRESSES = 8
EXCERPT_BYTES = 1 << 13
SHOWN_CHARACTERS = 200

_USER_IN_ADDRESS = re.compile(r"(?<=://)[^/?#\s]*@")


class Mask:
    """Hides every secret that it was told of, however an API writes it: escaped or encoded."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def add(self, secret: str) -> str:
        """Hide this one from now on; returns it."""
        if len(secret) >= SHORTEST_SECRET and secret not in self._secrets:
            self._secrets.add(secret)
            longest_first = sorted(self._secrets, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(_any_form, longest_first)), re.IGNORECASE)
        return secret

    def __call__(self, text: str) -> str:
        """The text with *** for secrets, and for who asks in an address."""
        text = _USER_IN_ADDRESS.sub("***@", text)
        return self._pattern.sub("***", text) if self._pattern else text

    def hide_in(self, error: EltError) -> None:
        """Take the secrets, which some APIs repeat, out of what an error says."""
        error.args = tuple(self(str(argument)) for argument in error.args)
        if error.answer is not None:
            url, start = self(error.answer.url), self(error.answer.start)
            error.answer = replace(error.answer, url=url, start=start)

    def start_of(self, body: bytes) -> str:
        """The beginning of a body on one line; what is cut off is looked at before."""
        excerpt = self(body[:EXCERPT_BYTES].decode(errors="replace"))
        return " ".join(excerpt[:SHOWN_CHARACTERS].split())

    def is_secret(self, value: str) -> bool:
        """Whether a query parameter's value is a secret."""
        return len(value) >= SHORTEST_IN_ADDRESSES and value in self._secrets

    def shows_secret(self, text: str) -> bool:
        """Whether a secret is in there, in any form."""
        found = self._pattern.finditer(text) if self._pattern else ()
        return any(len(match[0]) >= SHORTEST_IN_ADDRESSES for match in found)


def _any_form(secret: str) -> str:
    return "".join(map(_any_form_of_character, secret))


def _any_form_of_character(character: str) -> str:
    """A pattern for a character, percent-encoded (twice, too) or escaped as JSON or HTML do."""
    if character.isalnum() and character.isascii():
        return character
    number = ord(character)
    forms = [
        re.escape(character),
        *map(_percent_encoded, (character.encode(), character.encode("latin-1", "ignore"))),
        re.escape(json.dumps(character)[1:-1]),
        rf"\\u{number:04x}",
        re.escape(html.escape(character)),
        f"&#(?:0*{number}|x0*{number:x});",
        r"\+" if character == " " else "",
    ]
    return rf"\\{{0,3}}(?:{'|'.join(filter(None, forms))})"


def _percent_encoded(characters: bytes) -> str:
    return "".join(f"%(?:25){{0,2}}{byte:02x}" for byte in characters)
