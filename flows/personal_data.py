"""Personal data: fields that are dropped, hashed or masked before anything of a page is stored.

Reading does it, right after it has taken from a page what paging needs. So the raw table, rejects,
the ledger and `make preview` never hold the original values. Knows nothing of Postgres or Prefect.
"""

import hmac
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import msgspec

from flows.errors import BadPayloadError, ConfigurationError, EltError
from flows.json_text import json_text, mask_halves, unmask_halves
from flows.page import Page
from flows.redaction import remember

log = logging.getLogger(__name__)

MASK = "***"

ReadSecret = Callable[[str], str]
Protect = Callable[[str], str]


class Protection(Protocol):
    """What happens to a field with personal data."""

    @property
    def secret(self) -> str:
        """The name of the secret that it needs; empty for none."""

    def function(self, read_secret: ReadSecret) -> Protect | None:
        """Replaces a value's text; None to drop the field."""


@dataclass(frozen=True)
class Dropped:
    """The field is removed."""

    secret: str = ""

    def function(self, read_secret: ReadSecret) -> None:
        """Nothing replaces the value."""


@dataclass(frozen=True)
class Hashed:
    """The value is replaced by its HMAC-SHA256 under a secret, in 64 hexadecimal digits."""

    secret: str

    def function(self, read_secret: ReadSecret) -> Protect:
        """Reads the secret.

        Raises:
            RefusedLoginError: the secret is missing.
        """
        secret = read_secret(self.secret)
        remember(secret)
        key = secret.encode()
        return lambda text: hmac.digest(key, text.encode(errors="surrogatepass"), "sha256").hex()


@dataclass(frozen=True)
class Masked:
    """The value is replaced by ***, and its last characters if it is at least twice as long."""

    last: int
    secret: str = ""

    def function(self, read_secret: ReadSecret) -> Protect:
        """Needs no secret."""
        last = self.last
        return lambda text: MASK + (text[-last:] if last and len(text) >= 2 * last else "")


def dropped() -> Dropped:
    """Remove the field."""
    return Dropped()


def hashed(secret: str) -> Hashed:
    """Replace the value by a hash: equal values have equal hashes, so joins and counts still work.

    `secret` names the key of the hash (`blocks.secrets`). Without the key, nobody can find a value
    by hashing all candidates. If the key changes, so do all hashes.
    """
    return Hashed(secret)


def masked(last: int = 0) -> Masked:
    """Replace the value by `***`, followed by its `last` characters."""
    return Masked(last)


def check_personal(owner: str, personal: Mapping[str, Protection], needed: set[str]) -> None:
    """Refuse fields that overlap, and to drop or mask one that identifies or orders records.

    Raises:
        ConfigurationError: with the fields.
    """
    for path, protection in personal.items():
        for other in personal:
            if other.startswith(f"{path}."):
                raise ConfigurationError(
                    f"{owner}: `personal` names {path!r} and {other!r}, which is a part of it. "
                    "Name one of them."
                )
        if path in needed and not isinstance(protection, Hashed):
            raise ConfigurationError(
                f"{owner}: `personal` removes {path!r}, which is part of its key. Use "
                "`hashed(…)`: equal values then still have equal hashes."
            )


@dataclass
class _Branch:
    """What is declared below a place in a record.

    Attributes:
        fields: path and function by the rest of the path, dots included: the API may send a field
            of exactly that name.
        below: the branches of nested objects, by their field.
    """

    fields: dict[str, tuple[str, Protect | None]] = field(default_factory=dict)
    below: dict[str, "_Branch"] = field(default_factory=dict)

    def add(self, rest: str, path: str, function: Protect | None) -> None:
        self.fields[rest] = (path, function)
        name, dot, deeper = rest.partition(".")
        if dot:
            self.below.setdefault(name, _Branch()).add(deeper, path, function)


class PersonalData:
    """Protects the pages of one resource.

    Attributes:
        count: the number of records so far.
        unseen: the declared fields that none of them had.
    """

    def __init__(
        self, owner: str, personal: Mapping[str, Protection], read_secret: ReadSecret
    ) -> None:
        """Reads the secrets of hashes.

        Raises:
            RefusedLoginError: a secret is missing.
        """
        self._owner = owner
        self._root = _Branch()
        for path, protection in personal.items():
            self._root.add(path, path, protection.function(read_secret))
        self.count = 0
        self.unseen = dict.fromkeys(personal)

    def protect(self, page: Page, find: Callable[[Page], list[Any]]) -> Page:
        """The page with a JSON list of its protected records; `find` finds them in it.

        Raises:
            BadPayloadError: a record can't be read, so its fields can't be found.
            ConfigurationError: the source's `records` function returned a value that is not JSON.
        """
        records = replace(page, keeps_digits=True).found
        self.count += len(records)
        body = b"[%b]" % b",".join(map(self._record, records))
        return replace(page, body=body, find=find)

    def warn(self) -> None:
        """Log the declared fields that no record had: their names may be wrong."""
        if self.count and self.unseen:
            log.warning(
                "%s: none of %d records has the field %s that `personal` names. If the API calls "
                "it otherwise, it is stored as it is: correct `personal`.",
                self._owner,
                self.count,
                " or ".join(map(repr, self.unseen)),
            )

    def _record(self, record: Any) -> bytes:
        """A protected record's JSON text; the other fields' texts stay as they are."""
        problem: EltError
        try:
            text = record if isinstance(record, msgspec.Raw) else json_text(record).encode()
            return self._text(bytes(text))
        except TypeError:
            problem = ConfigurationError(
                f"{self._owner}: its `records` function returned a value that is not of a JSON "
                "type. Return text, e.g. str(value) or value.isoformat()."
            )
        except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
            problem = BadPayloadError(
                f"{self._owner}: a record is no JSON object that can be read "
                f"({type(error).__name__}), so its personal fields can't be found. Nothing of the "
                "page is stored or shown. Correct `records`, or ask the API's owner."
            )
        # Raised out here, the exception does not get the original as its context, which may quote.
        raise problem

    def _text(self, text: bytes) -> bytes:
        if not text.lstrip().startswith(b"{"):
            raise ValueError("not an object")
        try:
            return self._protected(text, self._root, _as_it_is)
        except msgspec.DecodeError:
            masked = mask_halves(text.decode(errors="surrogatepass"))
            if masked is None:
                raise
        body = masked.encode(errors="surrogatepass")
        protected = self._protected(body, self._root, unmask_halves)
        return unmask_halves(protected.decode(errors="surrogatepass")).encode(
            errors="surrogatepass"
        )

    def _protected(self, text: bytes, branch: _Branch, original: Protect) -> bytes:
        """An object with the fields of the branch protected; a list with those of its objects.

        `original` returns the text of a value as the API sent it.
        """
        start = text.lstrip()[:1]
        if start == b"[":
            elements = msgspec.json.decode(text, type=list[msgspec.Raw])
            protected = (self._protected(bytes(each), branch, original) for each in elements)
            return b"[%b]" % b",".join(protected)
        if start != b"{":
            return text
        members = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        below, fields = branch.below.keys() & members.keys(), branch.fields.keys() & members.keys()
        if not below and not fields:
            return text
        for name in below:
            inner = self._protected(bytes(members[name]), branch.below[name], original)
            members[name] = msgspec.Raw(inner)
        for name in fields:
            path, function = branch.fields[name]
            self.unseen.pop(path, None)
            value = members.pop(name)
            if function is not None:
                members[name] = _replaced(bytes(value), function, original)
        return msgspec.json.encode(members)


def _as_it_is(text: str) -> str:
    return text


def _replaced(value: bytes, function: Protect, original: Protect) -> msgspec.Raw:
    """The value's replacement; null stays null. An object or a list counts as its JSON text."""
    if value == b"null":
        return msgspec.Raw(value)
    text = original(value.decode(errors="surrogatepass"))
    try:
        known = msgspec.json.decode(text, type=str)
    except (msgspec.MsgspecError, UnicodeError):
        found = json.loads(text, parse_float=str, parse_int=str)
        known = found if isinstance(found, str) else json.dumps(found, sort_keys=True)
    return msgspec.Raw(json.dumps(function(known)).encode())
