"""The recorded answers of one resource: a JSON file of `tests/sources/<source>/`.

Knows neither how they are recorded nor who replays them.
"""

import json
import re
from collections.abc import Container, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from flows.errors import ConfigurationError

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "sources"
EXPECTED = "expected.txt"
# Stands for the API's address in answers (RFC 2606); a replay puts its own there.
ORIGIN = "http://recorded.invalid"
# Requests to other hosts of the source are below this path, after it the host.
HOSTS_PATH = "/_hosts/"
FORM_TYPE = "application/x-www-form-urlencoded"

# A list or an object without others in it. A string's own line breaks are escaped.
_INNERMOST = re.compile(r"([\[{])\n([^\[\]{}]*)\n *([\]}])")

Query = list[tuple[str, str]]


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request, without its login, and its answer.

    Attributes:
        method: of the request.
        target: path and query of the request.
        sent: the request's headers that the declaration or the paging adds.
        posted: what was posted: JSON, or the names and values of a form.
        headers: those that were read: by the client, or by the declaration.
        body: of an answer in JSON, as the API sent it but for spaces.
        lines: of any other answer.
    """

    method: str
    target: str
    sent: dict[str, str] = {}
    posted: Any = None
    status: int = 200
    headers: dict[str, str] = {}
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    lines: list[str] = []

    @property
    def content(self) -> bytes:
        """The body's bytes."""
        if isinstance(self.body, msgspec.UnsetType):
            return "\n".join(self.lines).encode()
        return msgspec.json.format(bytes(self.body), indent=-1)

    def answers(
        self, method: str, place: tuple[str, Query], headers: Mapping[str, str], posted: Any
    ) -> bool:
        """Whether this is the answer to a request; the names of its headers are in lower case."""
        return (method, place, posted) == (
            self.method,
            place_of(self.target),
            self.posted,
        ) and self.sent.items() <= headers.items()


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """The answers of a resource.

    Attributes:
        recorded_at: what cursors and windows take for the present.
        base_path: the path of the source's base URL.
        partitions: the names of the partitions that were read.
        last: of each partition that was not read to its end, the last request.
    """

    recorded_at: datetime
    base_path: str
    partitions: list[str]
    last: dict[str, str]
    answers: list[Answer]


def place_of(target: str, without: frozenset[str] = frozenset()) -> tuple[str, Query]:
    """The path and the parameters of a target, however they are escaped."""
    parts = urlsplit(target)
    query = parse_qsl(parts.query, keep_blank_values=True)
    return unquote(parts.path), [pair for pair in query if pair[0] not in without]


def posted_in(body: bytes, content_type: str) -> Any:
    """What a request posts; None for nothing."""
    if not body:
        return None
    if content_type == FORM_TYPE:
        return [list(pair) for pair in parse_qsl(body.decode(), keep_blank_values=True)]
    return json.loads(body)


def to_json(recording: Recording) -> bytes:
    """The file's content."""
    text = msgspec.json.format(msgspec.json.encode(recording), indent=1).decode()
    return _INNERMOST.sub(_on_one_line, text).encode() + b"\n"


def _on_one_line(match: re.Match[str]) -> str:
    return match[1] + " ".join(line.strip() for line in match[2].split("\n")) + match[3]


def read(folder: Path, without: Container[str] = ()) -> dict[str, Recording]:
    """The recordings of a source's folder, by the names of their resources.

    Those `without`, which are about to be replaced, are not looked at.

    Raises:
        ConfigurationError: there is none, or one that can't be read.
    """
    found = {}
    files = sorted(folder.glob("*.json"))
    for file in files:
        if file.stem in without:
            continue
        try:
            found[file.stem] = msgspec.json.decode(file.read_bytes(), type=Recording)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise ConfigurationError(
                f"{file} is not a recording: {error}. {remedy(folder.name)}"
            ) from error
    if not files:
        raise ConfigurationError(f"Nothing of {folder.name} is recorded. {remedy(folder.name)}")
    return found


def remedy(source: str) -> str:
    """What to do about a recording that does not fit."""
    return f"Record it: make record SOURCE={source}"


def recorded_sources(folder: Path = FOLDER) -> list[str]:
    """The names of the sources that have recorded answers."""
    return sorted(file.parent.name for file in folder.glob(f"*/{EXPECTED}"))
