"""JSON texts that keep what Python's own objects and msgspec would lose or refuse.

Numbers keep their digits (`ExactNumber`); escapes of half a surrogate pair can be masked.
"""

import json
import re
from collections.abc import Iterator
from secrets import token_hex
from typing import Any

from flows.page import ExactNumber

_STRING_OR_INFINITY = re.compile(r'"(?:[^"\\]|\\.)*"|Infinity')
_SURROGATE_ESCAPE = re.compile(r"\\u[dD](?=[89a-fA-F][0-9a-fA-F]{2})")
_MASKED_ESCAPE = re.compile(r"\\u[eE](?=[89a-fA-F][0-9a-fA-F]{2})")


def json_text(record: Any) -> str:
    """The record as JSON: `ExactNumber`s with all digits, an infinite number as 1e999.

    Raises:
        RecursionError: when it is nested too deeply for Python to write it.
    """
    mark = token_hex()
    is_exact = any(isinstance(value, ExactNumber) for _, value in scalars(record))
    text = json.dumps(_marked(record, mark) if is_exact else record)
    text = re.sub(rf'"{mark}([^"]*)"', r"\1", text) if is_exact else text
    return _STRING_OR_INFINITY.sub(lambda m: m[0] if m[0][0] == '"' else "1e999", text)


def scalars(record: Any) -> Iterator[tuple[str, Any]]:
    """Each value at any depth that is neither a dict nor a list, with its path."""
    left: list[tuple[str, Any]] = [("", record)]
    while left:
        path, value = left.pop()
        if isinstance(value, dict):
            left += [(f"{path}.{name}" if path else str(name), v) for name, v in value.items()]
        elif isinstance(value, list):
            left += [(f"{path}[{number}]", v) for number, v in enumerate(value)]
        else:
            yield path, value


def _marked(value: Any, mark: str) -> Any:
    """The value with exact numbers replaced by marked texts, because json writes doubles."""
    if isinstance(value, dict):
        return {name: _marked(inner, mark) for name, inner in value.items()}
    if isinstance(value, list):
        return [_marked(inner, mark) for inner in value]
    return mark + value.digits if isinstance(value, ExactNumber) else value


def mask_halves(text: str) -> str | None:
    r"""The text with other escapes instead of those of surrogates, which msgspec refuses in halves.

    None if it contains such other escapes already, so that they could not be told apart.
    """
    return None if _MASKED_ESCAPE.search(text) else _SURROGATE_ESCAPE.sub(_raised, text)


def unmask_halves(text: str) -> str:
    """The reverse of `mask_halves`."""
    return _MASKED_ESCAPE.sub(_lowered, text)


def _raised(start: re.Match[str]) -> str:
    r"""`\ud` as `\ue`, `\uD` as `\uE`."""
    return f"\\u{chr(ord(start[0][2]) + 1)}"


def _lowered(start: re.Match[str]) -> str:
    return f"\\u{chr(ord(start[0][2]) - 1)}"
