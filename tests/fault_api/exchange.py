"""One HTTP exchange as plain values: what is asked, and what is answered.

Knows no server, no socket and no route.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

JSON_TYPE = "application/json"
FORM_TYPE = "application/x-www-form-urlencoded"


class AskError(Exception):
    """A request that gets an error instead of data; `status` says which kind it is."""

    def __init__(self, message: str, status: int = 400, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


@dataclass(frozen=True)
class Ask:
    """A request.

    Attributes:
        target: path and query as they were sent.
        headers: by lower-case name.
        base: scheme, host and port as the client named them, without a slash at the end.
    """

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    base: str = ""

    @property
    def path(self) -> str:
        """The path without its escapes."""
        return unquote(urlsplit(self.target).path)

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """The query's parameters and, before them, the fields of a form or of a JSON body.

        Raises:
            AskError: when there is a body that is no JSON object.
        """
        return {**dict(parse_qsl(urlsplit(self.target).query)), **self._fields()}

    def _fields(self) -> dict[str, Any]:
        if not self.body:
            return {}
        if self.headers.get("content-type") == FORM_TYPE:
            return dict(parse_qsl(self.body.decode()))
        try:
            fields = json.loads(self.body)
        except ValueError as error:
            raise AskError(f"The body is no JSON: {error}.") from error
        if not isinstance(fields, dict):
            raise AskError("The body is no JSON object.")
        return fields

    def whole(self, name: str, default: int, least: int = 0) -> int:
        """The argument as a whole number.

        Raises:
            AskError: when it is no whole number of at least `least`.
        """
        value = self.arguments.get(name)
        if value is None:
            return default
        if not re.fullmatch(r"-?[0-9]{1,9}", str(value)) or int(value) < least:
            raise AskError(f"{name} is {value!r}; expected a whole number, {least} or more.")
        return int(value)

    def link(self, **changes: object) -> str:
        """Path and query with some parameters changed; None takes one away."""
        parts = urlsplit(self.target)
        query = {**dict(parse_qsl(parts.query)), **changes}
        kept = {name: value for name, value in query.items() if value is not None}
        return parts._replace(query=urlencode(kept)).geturl()


@dataclass(frozen=True)
class Answer:
    """A response; whoever sends it adds the headers that frame the body."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": JSON_TYPE})


def as_json(
    document: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Answer:
    """An answer in JSON."""
    body = json.dumps(document, ensure_ascii=False).encode()
    return Answer(body, status, {"Content-Type": JSON_TYPE, **(headers or {})})


def refusal(error: AskError) -> Answer:
    """What is sent for an error."""
    return as_json({"error": str(error)}, error.status, error.headers)
