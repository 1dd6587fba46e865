"""The types passed from extract to load: a page, its request, and the resume point."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, NoReturn, Protocol, TypeGuard

import msgspec

from flows.errors import BadPayloadError
from flows.redaction import start_of
from flows.traffic import NO_TRAFFIC, Traffic

# What stands for the content of a response that may not be quoted.
HIDDEN_CONTENT = "(not shown: it may hold personal data)"

# An API that answers so is busy, and may be asked again (`flows.extract.response`).
BUSY_STATUSES = (408, 425, 429)
Method = Literal["GET", "POST"]
BodyForm = Literal["json", "form"]


@dataclass(frozen=True)
class HttpRequest:
    """One request, without the login, which is added on sending and never stored.

    Attributes:
        url: absolute, with its query.
        body: sent as JSON, or the fields of a form; None for no body.
        hides_answer: no error or log quotes the response.
        sends: the form of the body.
        public_hosts: those that get neither the login nor the headers, also after a redirect.
    """

    url: str
    method: Method = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    hides_answer: bool = False
    sends: BodyForm = "json"
    public_hosts: tuple[str, ...] = ()

    def __str__(self) -> str:
        """`http://api/orders?page=2`, or `POST http://api/graphql {"query": …}`."""
        words: list[str] = [] if self.method == "GET" else [self.method]
        words += [] if self.sends == "json" else [self.sends]
        words += [self.url, *(f"{name}: {value}" for name, value in self.headers.items())]
        return " ".join(words + ([] if self.body is None else [json.dumps(self.body)]))


@dataclass(frozen=True)
class Resume:
    """Where a load resumes after its last checkpoint.

    Attributes:
        first_request: the whole load's first request, as text, after `job` if it submits one. A
            load whose first request differs (its declaration or its window changed) does not resume
            here but begins again.
        url: of the next request; None for the first one of the slice at `since`.
        since: the start of the current slice of the window.
        headers: of the next request; paging may set them.
        body: of the next request; paging may set it.
        reject_id: the last reject that was read, if the load replays rejects.
        is_first: nothing of the load is stored yet, so to begin again stores nothing twice.
    """

    first_request: str
    url: str | None
    since: datetime | None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    reject_id: int | None = None
    is_first: bool = False


class ExactNumber(float):
    """A JSON number that keeps its digits; its numeric value is the nearest double."""

    __slots__ = ("digits",)

    digits: str

    def __new__(cls, digits: str) -> "ExactNumber":
        """`digits` as the API wrote them."""
        number = super().__new__(cls, digits)
        number.digits = digits
        return number


def exact_integer(digits: str) -> int | ExactNumber:
    """An integer of any length; Python refuses to make an `int` of over 4,300 digits."""
    most = sys.get_int_max_str_digits()
    return ExactNumber(digits) if 0 < most < len(digits.lstrip("-")) else int(digits)


# Arguments of `json.loads` for numbers that keep their digits.
EXACT_NUMBERS: Mapping[str, Any] = {"parse_float": ExactNumber, "parse_int": exact_integer}


@dataclass
class Page:
    """One HTTP response body; `resume` is None on the last page of a load.

    Attributes:
        body: text is in UTF-8, whatever encoding the API sent (`flows.extract.charsets`).
        request: the request for this page.
        headers: of the response; names in any case.
        find: the resource's `records`.
        check_count: raises if that number of records is not all that the API sent.
        is_empty: by the source's rules or status 204, the page has no records, whatever its body.
        is_cut: it has no records where the page before it said that more follow, and no rule `end`
            says that the API ends its lists so.
        is_last: by the source's rules, nothing follows this response.
        is_accepted: by the source's rules, its records are valid even if it reports errors.
        token: of a TokenCursor, on the page that ends a load; empty if it should have one.
        traffic: the requests since the page before it.
        keeps_digits: numbers in `document` are `ExactNumber`s instead of floats.
        status: of the response.
        is_mark: it has no records; its resume point is committed before anything else is requested.
        max_bytes: what may be made of the body, such as the files of an archive.
    """

    body: bytes
    url: str
    content_type: str = "application/json"
    resume: Resume | None = None
    request: HttpRequest | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    find: Callable[["Page"], list[Any]] | None = None
    check_count: Callable[["Page", int], None] | None = None
    is_empty: bool = False
    is_cut: bool = False
    is_last: bool = False
    is_accepted: bool = False
    token: str | None = None
    traffic: Traffic = NO_TRAFFIC
    keeps_digits: bool = False
    max_bytes: int = 64 << 20
    status: int = 200
    is_mark: bool = False
    _members: dict[tuple[str, ...], Mapping[str, msgspec.Raw] | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def rewrite(self, body: bytes) -> None:
        """Replace the body, and forget what was found in the one before."""
        self.body = body
        self._members = {}
        for name in ("document", "found", "rows"):
            vars(self).pop(name, None)

    @property
    def hides_content(self) -> bool:
        """Whether no error may quote the body."""
        return self.request is not None and self.request.hides_answer

    def start_of(self, text: bytes | str | None = None) -> str:
        """The start of the body, or of a part of it, for an error; redacted."""
        if self.hides_content:
            return HIDDEN_CONTENT
        return start_of(self.body if text is None else text)

    def quoted(self, found: object) -> str:
        """What was found in the page, for an error."""
        return HIDDEN_CONTENT if self.hides_content else repr(found)

    @cached_property
    def rows(self) -> list[Any]:
        """The records, as in `found`, for paging that counts them."""
        if self.check_count is not None:
            self.check_count(self, len(self.found))
        return self.found

    @cached_property
    def found(self) -> list[Any]:
        """The records, unparsed (`msgspec.Raw`) where they can be cut out of the body."""
        if self.is_empty or self.find is None:
            return []
        if cuts_out(self.find):
            try:
                return msgspec.json.decode(self.find.raw(self) or b"", type=list[msgspec.Raw])
            except (msgspec.DecodeError, UnicodeDecodeError):
                return self.find(self)
        return self.find(self)

    @property
    def members(self) -> Mapping[str, msgspec.Raw] | None:
        """The members of the body's JSON object, unparsed; None if the body is not an object."""
        return self.members_at(())

    def members_at(self, path: tuple[str, ...]) -> Mapping[str, msgspec.Raw] | None:
        """The members of the object at a path, unparsed; None if there is no object.

        They are views of the body, and found once.
        """
        if path not in self._members:
            self._members[path] = _members(self.unparsed(path) if path else self.body)
        return self._members[path]

    def unparsed(self, path: tuple[str, ...]) -> msgspec.Raw | None:
        """The value at a path of at least one name, a view of the body; None if it is missing."""
        members = self.members_at(path[:-1])
        return None if members is None else members.get(path[-1])

    @cached_property
    def document(self) -> Any:
        """The body as Python objects.

        Raises:
            BadPayloadError: when the body is not JSON (RFC 8259: no NaN, no Infinity).
        """
        try:
            numbers = EXACT_NUMBERS if self.keeps_digits else {}
            return json.loads(self.body, parse_constant=_refuse_constant, **numbers)
        except UnicodeDecodeError as error:
            raise not_utf8(self, error) from error
        except (ValueError, RecursionError) as error:
            raise BadPayloadError(
                f"{self.url} answered {len(self.body)} bytes of {self.content_type} that are not "
                f"JSON ({error}); they begin {self.start_of()!r}. "
                "Ask the API's owner, or correct the address."
            ) from error


def _members(found: bytes | msgspec.Raw | None) -> Mapping[str, msgspec.Raw] | None:
    try:
        return msgspec.json.decode(found or b"", type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def not_utf8(page: Page, error: UnicodeDecodeError) -> BadPayloadError:
    """The error for a page whose text is not UTF-8."""
    return BadPayloadError(
        f"{page.url} answered {page.content_type} that is not {error.encoding}: byte "
        f"0x{error.object[error.start]:02x} at position {error.start} is invalid ({error.reason}). "
        "Declare the resource's `encoding` (cp1252, say), or ask the API's owner."
    )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


class RawSelector(Protocol):
    """A `records` function whose list of records can be cut out of a page unparsed."""

    def __call__(self, page: Page) -> list[Any]:
        """The records."""

    def raw(self, page: Page) -> bytes | None:
        """The bytes of the list; None where there is no such list."""


def cuts_out(records: Callable[[Page], list[Any]]) -> TypeGuard[RawSelector]:
    """Whether a `records` function is a RawSelector; `isinstance` would take 0.1 ms."""
    return hasattr(records, "raw")
