"""Reads a document that describes an API, and follows its `$ref`s, both within bounds."""

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from commands.new_source import api_url, login_option
from commands.waits import shortened
from flows.errors import ConfigurationError
from flows.extract.client import Client
from flows.extract.first_request import first_request
from flows.extract.selectors import record_at
from flows.source import Partition, Resource, Source, Window

MAX_BYTES = 32 << 20
# Of values, with each alias of YAML counted as often as it is used.
MAX_VALUES = 2_000_000
MAX_DEPTH = 100
MAX_STEPS = 3_000_000
CUT_DOWN = "Cut the document down to the endpoints that are needed."
MAX_HOPS = 20

Node = Mapping[str, Any]
# libyaml is ten times faster.
_SAFE_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class Document:
    """A parsed document.

    Attributes:
        place: its address or path, to show.
        steps: how many values were looked at; schemas can multiply by their references.
    """

    place: str
    root: Node
    steps: int = 0

    def resolved(self, value: Any) -> Node:
        """The mapping that a value is or refers to; an empty one for anything else.

        What stands beside a `$ref` wins, as in OpenAPI 3.1 and Airbyte's manifests.

        Raises:
            ConfigurationError: when a reference leads to another document, nowhere or in a circle.
        """
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise ConfigurationError(
                f"{self.place}: its schemas multiply by their references. {CUT_DOWN}"
            )
        beside: dict[str, Any] = {}
        for _ in range(MAX_HOPS):
            if not isinstance(value, Mapping):
                return beside
            target = value.get("$ref")
            if not isinstance(target, str):
                return {**value, **beside}
            beside = {**{name: each for name, each in value.items() if name != "$ref"}, **beside}
            value = self._target(target)
        raise ConfigurationError(f"{self.place}: the $ref {target!r:.200} leads in a circle.")

    def _target(self, reference: str) -> Any:
        if not reference.startswith("#"):
            raise ConfigurationError(
                f"{self.place}: the $ref {reference!r:.200} is in another document, which is not "
                "read. Bundle them into one first, e.g. with `redocly bundle`."
            )
        found: Any = self.root
        for step in filter(None, reference[1:].split("/")):
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and name.isdigit() and int(name) < len(found):
                found = found[int(name)]
            elif isinstance(found, Mapping) and name in found:
                found = found[name]
            else:
                raise ConfigurationError(
                    f"{self.place}: the $ref {reference!r:.200} names nothing."
                )
        return found


def mappings(value: Any) -> Iterator[tuple[str, Node]]:
    """The members of a mapping that are mappings themselves."""
    for name, member in value.items() if isinstance(value, Mapping) else ():
        if isinstance(member, Mapping):
            yield name, member


def items(value: Any) -> list[Any]:
    """A list, or an empty one for anything else."""
    return value if isinstance(value, list) else []


def text_of(value: Any) -> str:
    """A text, or an empty one for anything else."""
    return value if isinstance(value, str) else ""


def check_chosen(what: str, chosen: Sequence[str], known: Container[str]) -> None:
    """Refuse chosen resources that a document, or `what` it is, does not offer.

    Raises:
        ConfigurationError: with the first of them.
    """
    if unknown := [name for name in chosen if name not in known]:
        raise ConfigurationError(
            f"RESOURCES: the {what} has no {unknown[0]!r}. Without RESOURCES, all are listed."
        )


def read(place: str) -> Document:
    """Read a document from a file, or from an address with one request.

    Raises:
        ConfigurationError: when it can't be read, is too large, or is not an object.
        EltError: as `Client.get` does.
    """
    is_address = place.startswith(("http://", "https://"))
    shown, body = _requested(place) if is_address else (place, _from_file(Path(place)))
    try:
        root = _Copy(shown).of(_parsed(body))
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigurationError(
            f"{shown} is neither JSON nor YAML ({reason:.200}). Name an OpenAPI document or an "
            "Airbyte manifest."
        ) from error
    if not isinstance(root, dict):
        raise ConfigurationError(f"{shown} is not an object, but {type(root).__name__}.")
    return Document(shown, root)


def _requested(place: str) -> tuple[str, bytes]:
    given = api_url.parsed(place, "document")
    login, read_secret = login_option.chosen(None, given.login)
    resource = Resource("document", given.path, record_at(), params=given.params)
    source = Source("document", given.base_url, (resource,), login=login, max_body_bytes=MAX_BYTES)
    with Client(shortened(source), read_secret) as client:
        return given.url, client.get(first_request(source, resource, Partition(), Window())).body


def _from_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            body = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror}.") from error
    if len(body) > MAX_BYTES:
        raise ConfigurationError(f"{path} has more than {MAX_BYTES >> 20} MiB. Cut it down.")
    return body


def _parsed(body: bytes) -> Any:
    text = body.decode("utf-8-sig")
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError:
            pass  # YAML's objects may begin with a brace, too
    return yaml.load(text, Loader=_SAFE_LOADER)  # noqa: S506 (a safe loader, in C)


class _Copy:
    """Copies parsed values with texts as names, and counts them."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._count = 0

    def of(self, value: Any, depth: int = 0) -> Any:
        self._count += 1
        if self._count > MAX_VALUES or depth > MAX_DEPTH:
            raise ConfigurationError(
                f"{self._place} has more than {MAX_VALUES:,} values, or is more than {MAX_DEPTH} "
                f"levels deep. {CUT_DOWN}"
            )
        if isinstance(value, dict):
            return {str(name): self.of(each, depth + 1) for name, each in value.items()}
        if isinstance(value, list):
            return [self.of(each, depth + 1) for each in value]
        return value.isoformat() if isinstance(value, date) else value
