"""Refuses limits that are out of range, names that are too long, and hosts that are none."""

import re
from collections.abc import Iterable
from typing import Any

from flows.errors import ConfigurationError
from flows.page import BUSY_STATUSES

# Postgres truncates longer names (https://www.postgresql.org/docs/current/limits.html).
NAME_BYTES = 63


# Every table has them (https://www.postgresql.org/docs/current/ddl-system-columns.html).
SYSTEM_COLUMNS = frozenset({"ctid", "tableoid", "xmin", "xmax", "cmin", "cmax"})

_HOST = re.compile(r"([^\s/?#@:\[\]]+|\[[0-9a-fA-F:.]+\])(:\d+)?")


def check_length(what: str, name: str) -> None:
    """Refuse a name that Postgres would truncate, since two names could then become one.

    Raises:
        ConfigurationError: with the name and its length.
    """
    size_bytes = len(name.encode())
    if size_bytes > NAME_BYTES:
        raise ConfigurationError(
            f"{what} {name} has {size_bytes} bytes. Postgres truncates names to {NAME_BYTES}, so "
            "two names could become one. Choose a shorter one."
        )


def check_least(owner: str, least: Any, **limits: Any) -> None:
    """Refuse limits below `least`, and NaN; None means no limit."""
    for name, value in limits.items():
        if value is not None and not value >= least:
            raise ConfigurationError(
                f"{owner}: {name}={value} is out of range. Use {least or 0} or more."
            )


def check_positive(owner: str, zero: Any, **limits: Any) -> None:
    for name, value in limits.items():
        if value is not None and not value > zero:
            raise ConfigurationError(
                f"{owner}: {name}={value} is out of range. Use more than {zero}."
            )


def check_expired(owner: str, statuses: Iterable[int], what: str) -> None:
    """Refuse statuses that never mean that `what`, e.g. a job, has expired."""
    for status in statuses:
        if status not in range(400, 500) or status in BUSY_STATUSES:
            raise ConfigurationError(
                f"{owner}: {status} never means that {what}. Name statuses from 400 to 499, but "
                f"not {', '.join(map(str, BUSY_STATUSES))}: they are retried."
            )


def check_hosts(owner: str, hosts: Iterable[str]) -> None:
    """Refuse hosts that no address has, such as a whole address."""
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise ConfigurationError(
                f"{owner}: {host!r} is not a host. Write it as in an address, without what is "
                "before and after it, e.g. 'exports.example.com' or 'exports.example.com:8443'."
            )
