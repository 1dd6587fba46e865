"""Records of an XML body, which becomes JSON as soon as it is read.

Expat parses it. A document type declaration is refused, so there are no entities to expand, no
external files, and no default values of attributes.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar
from xml.parsers import expat

import msgspec

from flows.errors import BadPayloadError, ConfigurationError
from flows.extract.charsets import to_utf8
from flows.extract.json_records import RecordsAt
from flows.page import HIDDEN_CONTENT, Page
from flows.source import Resource

MAX_DEPTH = 100
# The member of the JSON document with the records; no element has such a name.
RECORDS = "#records"
_FOUND = RecordsAt(RECORDS)
_NULL = ("true", "1")


@dataclass(frozen=True)
class XmlAt:
    """The elements at a path, as records of text."""

    path: str
    lists: tuple[str, ...] = ()
    optional: bool = False
    types: ClassVar[tuple[str, ...]] = ("xml",)

    def __post_init__(self) -> None:
        """Refuse a path without an element, and one text as names."""
        if not all(self.path.split(".")):
            raise ConfigurationError(
                f"xml_at({self.path!r}): write the names of the elements from the root to a "
                "record, e.g. 'rss.channel.item'."
            )
        if isinstance(self.lists, str):
            raise ConfigurationError(f"xml_at(lists={self.lists!r}): write a tuple of names.")

    def to_json(self, page: Page, resource: Resource) -> bytes:
        """The document in JSON: its records in a list, and all other elements for the paging.

        Raises:
            BadPayloadError: the body is not well-formed, has a document type declaration, or no
                element in which the records should be.
        """
        body = to_utf8(page, resource, self)
        reader = _Reader(tuple(self.path.split(".")), frozenset(self.lists))
        try:
            reader.read(body)
        except (expat.ExpatError, _RefusedError, ValueError) as error:
            said = HIDDEN_CONTENT if page.hides_content else str(error)
            raise BadPayloadError(
                f"{page.url} answered {len(body)} bytes of {page.content_type} that can't be read "
                f"as XML ({said}); they begin {page.start_of(body)!r}. Ask the API's owner, or "
                "correct the address."
            ) from None
        self._check(page, reader)
        return msgspec.json.encode({**reader.document, RECORDS: reader.records})

    def __call__(self, page: Page) -> list[Any]:
        """The records of the JSON document."""
        return _FOUND(page)

    def raw(self, page: Page) -> bytes | None:
        """The unparsed list of records."""
        return _FOUND.raw(page)

    def _check(self, page: Page, reader: "_Reader") -> None:
        """Refuse a document without records that is probably another one."""
        *above, name = self.path.split(".")
        others = [other for other, count in reader.siblings.items() if count > 1]
        problem = ""
        if not (reader.has_place if above else reader.records):
            problem = f"has no element {'.'.join(above) or name!r}; its root is {reader.root!r}"
        elif not reader.records and others and not self.optional:
            problem = f"has no element {name!r} in {'.'.join(above)!r}, but several {others[0]!r}"
        if problem:
            raise BadPayloadError(
                f"{page.url} {problem}. Correct the path in xml_at, declare optional=True if there "
                "may be no records, or ask the API's owner."
            )


def xml_at(path: str, *, lists: tuple[str, ...] = (), optional: bool = False) -> XmlAt:
    """The elements at `path`, from the root: `<rss><channel><item>…` are at `rss.channel.item`.

    Their children and attributes (`@id`) are fields, all of them text, empty ones null; the text of
    an element that has either is `#text`. Elements that are there several times are a list; those
    named in `lists` always are.

    Without a record, elements that repeat in its place are an error, unless it is `optional`.
    """
    return XmlAt(path, lists, optional)


class _RefusedError(Exception):
    """The document has something that is not read."""


class _Reader:
    """Reads one document.

    Attributes:
        document: the root element by its name, without the records.
        records: each as JSON.
        has_place: whether there is an element in which the records should be.
        siblings: how often each name is there in such elements.
    """

    def __init__(self, path: tuple[str, ...], lists: frozenset[str]) -> None:
        self._path = path
        self._lists = lists
        self._names: list[str] = []
        self._open: list[_Element] = [_Element()]
        self.document: dict[str, Any] = {}
        self.records: list[msgspec.Raw] = []
        self.has_place = False
        self.siblings: Counter[str] = Counter()
        self.root = ""

    def read(self, body: bytes) -> None:
        """Read all of it.

        Raises:
            ExpatError: it is not well-formed.
            _RefusedError: it has a document type declaration, or is nested too deeply.
        """
        parser = expat.ParserCreate("utf-8")
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = _refuse_doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.Parse(body, True)
        self.document = self._open[0].fields

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._names) == MAX_DEPTH:
            raise _RefusedError(f"it is nested over {MAX_DEPTH} deep")
        self.root = self.root or name
        if self._is_place():
            self.siblings[name] += 1
        self._names.append(name)
        self._open.append(_Element(attributes))
        self.has_place = self.has_place or self._is_place()

    def _is_place(self) -> bool:
        """Whether the innermost element is one in which the records should be."""
        return len(self._names) == len(self._path) - 1 and tuple(self._names) == self._path[:-1]

    def _text(self, text: str) -> None:
        self._open[-1].texts.append(text)

    def _end(self, name: str) -> None:
        is_record = len(self._names) == len(self._path) and tuple(self._names) == self._path
        self._names.pop()
        value = self._open.pop().value()
        if is_record:
            record = value if isinstance(value, dict) else {"#text": value}
            self.records.append(msgspec.Raw(msgspec.json.encode(record)))
        else:
            self._open[-1].add(name, value, name in self._lists)


class _Element:
    """An element that is being read."""

    def __init__(self, attributes: dict[str, str] | None = None) -> None:
        given = attributes or {}
        self._is_null = given.get("xsi:nil") in _NULL
        self.fields: dict[str, Any] = {
            f"@{name}": value
            for name, value in given.items()
            if name != "xmlns" and not name.startswith(("xmlns:", "xsi:"))
        }
        self._repeated: set[str] = set()
        self.texts: list[str] = []

    def add(self, name: str, value: Any, is_list: bool) -> None:
        """Add a child; from the second of its name on, they are a list."""
        if name in self._repeated:
            self.fields[name].append(value)
        elif is_list or name in self.fields:
            first = [self.fields[name]] if name in self.fields else []
            self.fields[name] = [*first, value]
            self._repeated.add(name)
        else:
            self.fields[name] = value

    def value(self) -> Any:
        """Its text if it has neither children nor attributes, otherwise its fields."""
        if self._is_null:
            return None
        text = "".join(self.texts)
        if not self.fields:
            return text or None
        if text.strip():
            self.fields["#text"] = text
        return self.fields


def _refuse_doctype(*_: object) -> None:
    raise _RefusedError("it has a document type declaration, which is refused")
