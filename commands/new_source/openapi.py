"""Endpoints of an OpenAPI (3.0, 3.1) or Swagger (2.0) document, and the API's address."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urljoin, urlsplit

from commands.new_source import json_schema
from commands.new_source.documents import Document, Node, items, mappings, text_of
from commands.new_source.inference import is_usual, plain, singular
from commands.new_source.json_schema import Schema, schema
from flows.errors import ConfigurationError
from flows.load.column_names import column_name

_UNFIT = re.compile("[\x00-\x20\x7f\ud800-\udfff#]")
PARAM = re.compile(r"\{([^{}]*)\}")
_SELECTORS = (("ndjson", "ndjson"), ("jsonl", "ndjson"), ("json", ""), ("csv", "csv_rows"))


@dataclass(frozen=True)
class Endpoint:
    """A GET of the document.

    Attributes:
        path: as the document writes it, with `{parameters}`.
        shared: what the path says for all of its operations.
    """

    document: Document
    name: str
    path: str
    operation: Node
    shared: Node

    @cached_property
    def params(self) -> dict[str, Schema]:
        """Query parameters with their schemas."""
        return {
            name: found for name, (where, found, _) in self._parameters.items() if where == "query"
        }

    @cached_property
    def required(self) -> list[str]:
        """Query parameters and headers that each request needs."""
        return [
            name
            for name, (where, _, is_required) in self._parameters.items()
            if is_required and where in ("query", "header")
        ]

    @cached_property
    def _parameters(self) -> dict[str, tuple[str, Schema, bool]]:
        found = {}
        for each in [
            *items(self.shared.get("parameters")),
            *items(self.operation.get("parameters")),
        ]:
            node = self.document.resolved(each)
            known = schema(self.document, node.get("schema", node))
            name = text_of(node.get("name"))
            found[name] = (text_of(node.get("in")), known, node.get("required") is True)
        return found

    @cached_property
    def response(self) -> Node:
        """The first response of success."""
        for status, node in mappings(self.operation.get("responses")):
            if status.startswith("2"):
                return self.document.resolved(node)
        return {}

    @property
    def has_link(self) -> bool:
        """Whether the response has a Link header."""
        return any(name.lower() == "link" for name, _ in mappings(self.response.get("headers")))

    @cached_property
    def selector(self) -> str:
        """The selector that reads the response: empty for JSON, `-` for none."""
        kinds = dict(mappings(self.response.get("content")))
        listed = items(self.operation.get("produces", self.document.root.get("produces")))
        names = [*kinds, *map(text_of, listed)]
        if not names and "schema" in self.response:
            return ""
        for word, selector in _SELECTORS:
            if any(word in name for name in names):
                return selector
        return "-"

    @cached_property
    def body(self) -> Schema:
        """The schema of the response."""
        for name, content in mappings(self.response.get("content")):
            if "json" in name or "csv" in name:
                return schema(self.document, content.get("schema"))
        return schema(self.document, self.response.get("schema"))

    @cached_property
    def records(self) -> str | None:
        """The path of the records in the response; None if the response is one record.

        Raises:
            ConfigurationError: when the document does not tell it.
        """
        if self.selector or (self.body.type == "array" and self.body.item.is_object):
            return ""
        found = list(json_schema.lists(self.body))
        named = [path for path in found if plain(path.rpartition(".")[2]) in self._own_names]
        usual = [path for path in found if is_usual(path)]
        for paths in (found, named, usual):
            if len(paths) == 1 and (paths is not found or self._is_envelope(paths[0])):
                return paths[0]
        if not found and self.body.is_object:
            return None
        listed = (
            f"has lists that may be fields of one record: {', '.join(found)}"
            if found
            else "is not described"
        )
        raise ConfigurationError(
            f"{self.name}: its response {listed}. Write it from a response: make new-source NAME=… "
            "URL=… RECORDS=…"
        )

    @property
    def _own_names(self) -> set[str]:
        return {plain(self.name), plain(self.name.rpartition("_")[2])}

    def _is_envelope(self, path: str) -> bool:
        """Whether the only list holds the records; else it is a field of one record."""
        return is_usual(path) or plain(path.rpartition(".")[2]) in self._own_names

    @cached_property
    def record(self) -> Schema:
        """The schema of one record."""
        if self.records is None:
            return self.body
        found = json_schema.at(self.body, self.records)
        return found.item if found.type == "array" else found

    @property
    def is_list(self) -> bool:
        """Whether it is a list that can be read."""
        try:
            return self.selector != "-" and self.records is not None
        except ConfigurationError:
            return False

    @property
    def summary(self) -> str:
        """What the document says it is, as a sentence with a space behind it."""
        for name in ("summary", "description"):
            found = Schema(self.document, {"description": self.operation.get(name)}).about
            if found:
                return found
        return ""


def endpoints(document: Document) -> dict[str, Endpoint]:
    """All GETs of the document, by the names of their resources."""
    found = []
    for path, node in mappings(document.root.get("paths")):
        shared = document.resolved(node)
        if isinstance(operation := shared.get("get"), Mapping):
            found.append((path, operation, shared))
    names = _names([path for path, _, _ in found])
    return {
        names[path]: Endpoint(document, names[path], path, operation, shared)
        for path, operation, shared in found
    }


def _names(paths: Sequence[str]) -> dict[str, str]:
    """A name for each path: its last word, or as many of them as no other path has."""
    named: dict[str, str] = {}
    for length in (1, 2, 3, 99):
        wanted = {path: _name(path, length) for path in paths if path not in named}
        counts = Counter(wanted.values())
        for path, name in wanted.items():
            if (counts[name] == 1 and name not in named.values()) or length == 99:
                named[path] = name if name not in named.values() else _numbered(name, named)
    return named


def _name(path: str, length: int) -> str:
    words = [word for word in path.split("/") if word and not PARAM.search(word)]
    # A child has its parent's name, too: order_lines.
    last = words[-max(length, 2 if "}/" in path else 1) :] or ["root"]
    if PARAM.search(path.rpartition("/")[2]):
        last[-1] = singular(last[-1])
    last[:-1] = map(singular, last[:-1])
    return column_name(column_name("_".join(last)))[:50]


def _numbered(name: str, named: Mapping[str, str]) -> str:
    taken = set(named.values())
    return next(f"{name}_{at}" for at in range(2, len(taken) + 3) if f"{name}_{at}" not in taken)


def base_url(document: Document, given: str) -> str:
    """Where the API lives: what a person gives, or what the document says.

    Raises:
        ConfigurationError: when the document names no absolute address.
    """
    found = given or _server(document)
    parts = urlsplit(found)
    is_plain = parts.netloc and not parts.username and not parts.query and not _UNFIT.search(found)
    if parts.scheme not in ("http", "https") or not is_plain:
        raise ConfigurationError(
            f"The document names no address of the API ({found!r:.100}). Name it: "
            "URL=https://api.example.com/v1"
        )
    return f"{found.rstrip('/')}/"


def _server(document: Document) -> str:
    root = document.root
    if "swagger" in root:
        schemes = items(root.get("schemes")) or ["https"]
        scheme = "https" if "https" in schemes else text_of(schemes[0])
        host = text_of(root.get("host")) or urlsplit(document.place).netloc
        return f"{scheme}://{host}{text_of(root.get('basePath'))}"
    server = next(filter(None, map(document.resolved, items(root.get("servers")))), {})
    variables = dict(mappings(server.get("variables")))
    url = PARAM.sub(
        lambda found: text_of(variables.get(found[1], {}).get("default")) or found[0],
        text_of(server.get("url")),
    )
    return "" if PARAM.search(url) else urljoin(document.place, url)
