"""Readable differences between two plain structures."""

from collections.abc import Mapping
from datetime import timedelta
from enum import Enum
from typing import Any
from uuid import UUID

from deployments.check import secrets


def diff(old: Any, new: Any, path: str = "") -> list[str]:
    """One line for each value that differs, e.g. `parameters.retry.retries 3 -> 5`."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key in sorted({*old, *new})
            for line in diff(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
        ]
    if old == new:
        return []
    name = path.rpartition(".")[2]
    return [f"{path} {secrets.shown(name, old)} -> {secrets.shown(name, new)}"]


def plain(value: Any) -> Any:
    """A value as JSON types, with sets as sorted lists so that they compare equal."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Enum):
        return value.value
    if hasattr(value, "model_dump"):
        return plain(value.model_dump())
    return str(value) if isinstance(value, UUID) else value
