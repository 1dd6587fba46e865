"""Redaction: removes secrets from every text that is stored, logged or raised.

All loads of a process share one registry of known secrets: one source's response may quote another
source's login. Knows nothing of HTTP, Postgres or Prefect.
"""

import html
import json
import logging
import re
import traceback
from collections.abc import Callable, Iterator
from functools import cached_property
from threading import Lock
from typing import Any
from urllib.parse import parse_qsl, urlsplit

SHORTEST_SECRET = 4
# Shorter secrets look too much like ordinary words to be searched for in addresses.
SHORTEST_IN_ADDRESSES = 8
SHORTEST_SIGNATURE = 16
MOST_SIGNATURES = 1000
EXCERPT_BYTES = 1 << 13
SHOWN_CHARACTERS = 200
HIDDEN = "***"
# Marks of truncated text; Postgres truncates the values that it quotes.
CUT_OFF = ("...", "…")

_USER_IN_ADDRESS = re.compile(r"(?<=://)[^/?#\s]*@")
# Also in JSON with escaped slashes.
_QUERY = re.compile(r"(:(?:\\?/){2}[^?\s\"'<>]*\?)[^\s\"'<>]+")
_UNCHANGED = re.compile("[A-Za-z0-9]+")


class Secrets:
    """Finds secrets in any form: escaped, encoded, in upper or lower case."""

    def __init__(self, most: int | None = None) -> None:
        """Of more than `most`, the oldest ones are forgotten."""
        self._lock = Lock()
        self._most = most
        self._added: dict[str, _Secret] = {}
        # Never changed in place: threads read it while another one adds a secret.
        self._longest_first: tuple[_Secret, ...] = ()

    def add(self, text: str, shown: str = HIDDEN) -> None:
        """Replace this secret by `shown` from now on, unless it is too short."""
        if len(text) < SHORTEST_SECRET or self._holds(text):
            return
        with self._lock:
            self._added.setdefault(text, _Secret(text, shown))
            if self._most is not None and len(self._added) > self._most:
                self._added.pop(next(iter(self._added)))
            self._longest_first = tuple(sorted(self._added.values(), key=_length, reverse=True))

    def _holds(self, text: str) -> bool:
        return any(secret.text == text for secret in self._longest_first)

    def hidden_in(self, text: str) -> str:
        """The text with *** for each secret, including truncated ones that end with an ellipsis."""
        lowered = text.lower()
        for secret in self._longest_first:
            text = secret.hidden_in(text, lowered)
        return text

    def is_secret(self, value: str) -> bool:
        """Whether a query parameter's value is a secret."""
        return len(value) >= SHORTEST_IN_ADDRESSES and self._holds(value)

    def shows_secret(self, text: str) -> bool:
        """Whether the text contains a secret too long to be an ordinary word."""
        lowered = text.lower()
        return any(
            len(match[0]) >= SHORTEST_IN_ADDRESSES
            for secret in self._longest_first
            for match in secret.matches(text, lowered)
        )


class _Secret:
    def __init__(self, text: str, shown: str) -> None:
        self.text = text
        self.shown = shown
        # No encoding changes it, so a text without it contains no form of the secret.
        self._anchor = max(_UNCHANGED.findall(text), key=len, default="").lower()

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("".join(map(_any_form_of_character, self.text)), re.IGNORECASE)

    def matches(self, text: str, lowered: str) -> Iterator[re.Match[str]]:
        return self._pattern.finditer(text) if self._anchor in lowered else iter(())

    def hidden_in(self, text: str, lowered: str) -> str:
        if self._anchor in lowered:
            text = self._pattern.sub(lambda _: self.shown, text)
        return self._cut_off_hidden_in(text)

    def _cut_off_hidden_in(self, text: str) -> str:
        start = self.text[:SHORTEST_IN_ADDRESSES]
        at = text.find(start) if len(start) == SHORTEST_IN_ADDRESSES else -1
        while at >= 0:
            end = at + _common_prefix_length(text[at:], self.text)
            if text.startswith(CUT_OFF, end):
                text = text[:at] + self.shown + text[end:]
            at = text.find(start, at + len(self.shown))
        return text


def _common_prefix_length(first: str, second: str) -> int:
    """The length of the common prefix of two texts."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(first), len(second)))


def _length(secret: _Secret) -> int:
    return len(secret.text)


_known = Secrets()
# Values of addresses that are as good as a login: hidden where a text is shown. Not all of them are
# secrets, so requests and records may contain them.
_signatures = Secrets(most=MOST_SIGNATURES)


def remember(secret: str) -> None:
    """Redact this secret in every text of the process from now on."""
    _known.add(secret)


def remember_signatures(url: str) -> None:
    """Redact long values of a signed address from now on, in texts that are shown."""
    for _, value in parse_qsl(urlsplit(url).query):
        if len(value) >= SHORTEST_SIGNATURE:
            _signatures.add(value)


def redact(text: str) -> str:
    """The text with *** for secrets, signatures and the user in an address."""
    return _signatures.hidden_in(_known.hidden_in(_USER_IN_ADDRESS.sub(f"{HIDDEN}@", text)))


def without_queries(text: str) -> str:
    """The text with *** for the queries of addresses, which may sign them."""
    return _QUERY.sub(rf"\1{HIDDEN}", text)


def shows_secret(text: str) -> bool:
    """Whether the text contains a known secret too long to be an ordinary word."""
    return _known.shows_secret(text)


def start_of(text: str | bytes) -> str:
    """The start of a text on one line, redacted before it is truncated."""
    excerpt = text[:EXCERPT_BYTES]
    if isinstance(excerpt, bytes):
        excerpt = excerpt.decode(errors="replace")
    if len(text) > EXCERPT_BYTES:
        excerpt += CUT_OFF[0]
    return " ".join(redact(excerpt)[:SHOWN_CHARACTERS].split())


def redact_record(record: str) -> str:
    """A record's JSON unchanged, or a JSON string of the redacted text if it contains a secret.

    The record stays readable, but a replay never stores *** as if the API had sent it.
    """
    redacted = _known.hidden_in(record)
    return record if redacted == record else json.dumps(redacted, ensure_ascii=False)


def _any_form_of_character(character: str) -> str:
    """A pattern for a character: plain, percent-encoded (repeatedly) or escaped in JSON or HTML."""
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


def _redact_log_record(record: logging.LogRecord) -> None:
    try:
        message = record.getMessage()
    except (TypeError, ValueError):
        # The handlers report a message that does not fit its arguments, without failing.
        return
    if (redacted := redact(message)) != message:
        record.msg, record.args = redacted, ()
    if record.exc_info and record.exc_info[1]:
        lines = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
        if (redacted := redact(lines)) != lines:
            record.exc_text, record.exc_info = redacted, None


def _with_redaction(make: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    def create(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = make(*arguments, **named)
        _redact_log_record(record)
        return record

    return create


# Not a filter: a logger's filter misses records of its child loggers, and a handler's filter misses
# records that go to other handlers, such as Prefect's.
logging.setLogRecordFactory(_with_redaction(logging.getLogRecordFactory()))
