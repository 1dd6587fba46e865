"""What a module in `flows/sources/` declares, and what passes between extract and load.

Declarations only: nothing here opens a connection or parses a body.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Literal, NoReturn, Protocol, runtime_checkable

import msgspec

from flows.errors import BadPayloadError, ConfigurationError

Record = dict[str, Any]
Params = Mapping[str, str]
Disposition = Literal["merge", "append", "replace"]


@dataclass(frozen=True)
class Window:
    """The slice of time to read: `since` inclusive, `until` exclusive, both UTC.

    None means open at that end.
    """

    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class Partition:
    """One slice of a resource, fetched on its own, e.g. a city; `values` feed its requests."""

    name: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Resume:
    """Where a load goes on after its last checkpoint.

    Attributes:
        first_url: the whole load's first request. A load that would begin with another one (its
            declaration or its window changed) does not go on from here but starts anew.
        url: the next request; None for the first one of the slice at `since`.
        since: the start of the slice of the window that is being read.
    """

    first_url: str
    url: str | None
    since: datetime | None


@dataclass
class Page:
    """One HTTP response body; `resume` is None on the last page of a load."""

    body: bytes
    url: str
    content_type: str = "application/json"
    resume: Resume | None = None

    @cached_property
    def members(self) -> Mapping[str, msgspec.Raw] | None:
        """The members of the body's JSON object, unparsed; None when the body is no such object."""
        try:
            return msgspec.json.decode(self.body, type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    @cached_property
    def document(self) -> Any:
        """The body as Python objects.

        Raises:
            BadPayloadError: when the body is not JSON (RFC 8259: no NaN, no Infinity).
        """
        try:
            return json.loads(self.body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise BadPayloadError(
                f"{self.url} answered {len(self.body)} bytes of {self.content_type} that are not "
                f"JSON ({error}); they begin {self.body[:200].decode(errors='replace')!r}. "
                "Ask the API's owner, or correct the address."
            ) from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


@runtime_checkable
class RawRecords(Protocol):
    """A `records` function whose list of records can be cut out of a page unparsed."""

    def raw(self, page: Page) -> bytes | None:
        """The list's own bytes; None where there is no such list."""


@dataclass(frozen=True)
class Cursor:
    """The record field that tells which records are new.

    Its values are ISO 8601 dates or times; those without an offset are taken as UTC.

    Attributes:
        field: the field's name as the API sends it.
        lookback: how far behind the newest value the next load starts, for late and corrected rows.
        start: where the first load starts; None asks the API for everything.
        step: reads the window in slices of this length, oldest first. Needs `start`; the last slice
            then ends with yesterday (UTC).
    """

    field: str
    lookback: timedelta = timedelta()
    start: datetime | None = None
    step: timedelta | None = None

    def __post_init__(self) -> None:
        """Refuse slices that have no beginning."""
        if self.step is not None and self.start is None:
            raise ConfigurationError(f"Cursor({self.field!r}) has a step: give it a start as well.")


@dataclass(frozen=True)
class Resource:
    """One endpoint of an API and the raw table it fills.

    Attributes:
        name: the raw table's name.
        path: appended to the source's base URL.
        records: finds the records in a page (`flows.extract.records`, or a function of your own).
        params: query parameters, or a function of the partition and the window that returns them.
        paging: the next page's URL, or None after the last page (`flows.extract.pagination`).
        key: the fields that identify a record, as the API names them.
        disposition: by default `merge` where there is a key and `append` where there is none.
        columns: Postgres types by column name, where JSON's own type is not wanted.
        cursor: what makes loads incremental.
        partitions: the slices that are fetched, locked and resumed on their own.
        partition_columns: the partition values that are stored with each record.
        checkpoint_rows: rows after which a load commits and can go on from there.
        max_rejects: a load that had to set more records aside than this ends as failed.
    """

    name: str
    path: str
    records: Callable[[Page], list[Any]]
    params: Params | Callable[[Partition, Window], Params] = field(default_factory=dict)
    paging: Callable[[Page], str | None] | None = None
    key: tuple[str, ...] = ()
    disposition: Disposition | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    cursor: Cursor | None = None
    partitions: tuple[Partition, ...] = (Partition(),)
    partition_columns: tuple[str, ...] = ()
    checkpoint_rows: int = 20_000
    max_rejects: int = 0

    @property
    def writes(self) -> Disposition:
        """The disposition in force."""
        return self.disposition or ("merge" if self.key else "append")

    def __post_init__(self) -> None:
        """Refuse declarations that would lose or double rows."""
        if self.writes == "merge" and not self.key:
            raise ConfigurationError(f"{self.name}: merge needs a key.")
        if (
            self.writes == "append"
            and self.cursor
            and (self.cursor.lookback or self.cursor.step is None)
        ):
            raise ConfigurationError(
                f"{self.name}: append with a cursor stores rows at its edge again. Declare a key, "
                "or give the cursor a step and no lookback."
            )
        if len(self.partitions) > 1 and not self.partition_columns:
            raise ConfigurationError(
                f"{self.name}: name the partition_columns, so that rows can be told apart."
            )
        names = [partition.name for partition in self.partitions]
        if not names or len(set(names)) < len(names):
            raise ConfigurationError(f"{self.name}: needs partitions, each with a name of its own.")


@dataclass(frozen=True)
class Source:
    """One API.

    Attributes:
        base_url: where the API lives; resource paths are appended to it.
        connect_timeout_seconds: how long a connection may take to open.
        read_timeout_seconds: how long the server may be silent while it answers.
        max_wait_seconds: how long one load may wait in all for an API that is down or busy.
    """

    name: str
    base_url: str
    resources: tuple[Resource, ...]
    connect_timeout_seconds: float = 10
    read_timeout_seconds: float = 60
    max_wait_seconds: float = 300

    def resource(self, name: str) -> Resource:
        """The resource of that name.

        Raises:
            ConfigurationError: when there is none; the message lists those there are.
        """
        for resource in self.resources:
            if resource.name == name:
                return resource
        known = ", ".join(resource.name for resource in self.resources)
        raise ConfigurationError(f"Source {self.name!r} has no resource {name!r}. It has: {known}.")
