"""Declarations of a module in `flows/sources/`: a source, its resources, cursors, partitions."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from flows.checks.api_requests import check_requests
from flows.checks.partitions import check_partitions
from flows.checks.rows import check_rows
from flows.checks.source import check_source
from flows.cursors import AnyCursor, Cursor, IntegerCursor, TokenCursor, Window
from flows.deletes import Deletes, FullList, Tombstones
from flows.errors import ConfigurationError
from flows.jobs import Job
from flows.logins import Accounts, Login
from flows.page import BodyForm, HttpRequest, Method, Page
from flows.partitions import Partition, RowsOf, product
from flows.personal_data import Protection
from flows.query_params import Params, ParamValue

__all__ = [
    "Accounts",
    "AnyCursor",
    "Contract",
    "Cursor",
    "Disposition",
    "FullList",
    "IntegerCursor",
    "Job",
    "Login",
    "ParamValue",
    "Params",
    "Partition",
    "Rate",
    "Record",
    "Resource",
    "RowsOf",
    "Rule",
    "Source",
    "TokenCursor",
    "Tombstones",
    "Window",
    "product",
]

Record = dict[str, Any]


Disposition = Literal["merge", "append", "replace"]


Contract = Literal["evolve", "freeze", "quarantine"]

UNUSUAL_FACTOR = 2.0


@dataclass(frozen=True)
class Rule:
    """Overrides what a response means.

    Attributes:
        then: `retry` as if the API were busy; `ignore`: no records, and its slice ends; `end`:
            the same, but not for the first page of a slice; `stop`: no records, and nothing more
            is read; `accept`: read its records despite its status and its `errors`; `fail` with
            the message.
        status: the response's status; None for any.
        body: a regular expression, searched for in the body; empty for any.
    """

    then: Literal["retry", "ignore", "end", "stop", "accept", "fail"]
    status: int | None = None
    body: str = ""
    message: str = ""

    def __post_init__(self) -> None:
        """Refuse a rule that matches every response, and an invalid pattern."""
        if self.status is None and not self.body:
            raise ConfigurationError(f"{self} matches every response: give it a status or a body.")
        try:
            re.compile(self.body)
        except re.error as error:
            raise ConfigurationError(
                f"{self.body!r} is not a regular expression: {error}."
            ) from error


@dataclass(frozen=True)
class Rate:
    """How often an API may be called: at most `requests` in any `seconds`.

    Attributes:
        is_shared: all processes that load the source into the same warehouse keep it together, with
            a pause between any two requests. Otherwise each process keeps it for itself.
    """

    requests: int
    seconds: float = 1
    is_shared: bool = False

    def __post_init__(self) -> None:
        """Refuse rates that allow no request."""
        if self.requests < 1 or self.seconds <= 0:
            raise ConfigurationError(f"{self} allows no requests: give it at least one.")


@dataclass(frozen=True)
class Resource:
    """One endpoint of an API and the raw table it fills.

    Attributes:
        name: the raw table's name.
        path: appended to the source's base URL; `{name}` stands for a value of the partition, and
            `{since}`, `{after}`, `{until}` and `{last}` for an end of the window or slice
            (`flows.extract.placeholders`).
        records: returns all records of a page (`flows.extract.selectors`, or your own function).
        params: query parameters, or a function of the partition and the window that returns them.
            Declared texts may name the window's ends as well; a parameter is left out while the
            window lacks the end it names. A list repeats its parameter:
            `{"status": ["open", "closed"]}`. True and False are sent as `true` and `false`.
        paging: the next request, or only its URL, or None after the last page
            (`flows.extract.paginators`, or your own function).
        method: POST for APIs that require it.
        headers: sent with each request; they may name the window's ends, as `params` may. Secrets
            belong in the source's login.
        body: what to POST, or a function of the partition and the window that returns it.
            Its texts may name the window's ends, as those of `params`. What a function returns is
            sent as it is.
        sends: how the body is sent: as `json`, or as the fields of a `form`.
        job: the request submits a job; its result are the records (`flows.jobs`).
        is_repeatable: whether a POST may be retried after a failure; a GET always may.
        max_empty_pages: how many pages in a row may be empty and still name a next one.
        max_pages: reading ends after this many pages, even if there are more. With a cursor, the
            next load then reads on, and the cursor stays until everything is read; so paging by
            offset or page number is refused.
        rules: override what responses mean; the first match wins.
        key: the fields that identify a record, as the API names them. Where there are several
            partitions, its partition_columns are part of it.
        key_is_global: the API never repeats the key's values in another partition, so that the key
            needs no partition_columns. A record that moves to another partition moves its row.
        disposition: by default `merge` where there is a key and `append` where there is none.
        deletes: how the resource learns that records were deleted at the API: `Tombstones` or
            `FullList`. Their rows are marked by the time in `_deleted_at`.
        columns: Postgres types by column name, to override the type inferred from JSON.
        names: column names by field, to override the field's name in snake_case.
        encoding: of the body, e.g. `cp1252`, where its Content-Type names none or a wrong one.
        map_record: changes or omits each record: takes a record, returns a record or None.
            `key`, `columns`, `names` and `cursor` then name fields of the records it returns.
            Rejects are kept as the API sent them.
        personal: fields with personal data, by their path (`customer.email`; also in the objects of
            a list), each `dropped()`, `hashed(secret)` or `masked()` (`flows.personal_data`) before
            anything is stored. `map_record` gets the records after that.
        cursor: makes loads incremental.
        partitions: slices that are fetched, locked and resumed independently.
        partition_columns: partition values stored with each record, to identify its partition.
        checkpoint_rows: rows after which a load commits and can resume from there.
        checkpoint_seconds: the same by time, for slow APIs.
        contract: applies once a load has succeeded, to records that do not fit the raw table:
            `evolve` changes the table, `freeze` fails the load and names the difference,
            `quarantine` rejects the records.
        max_shrinkage: the share of its rows (0 to 1) that a partition may lose in one `replace`,
            full list or full refresh; a load that would remove more fails and changes nothing.
        unusual_factor: the run is told of a load whose number of records is more than so many times
            the usual one, or less than the usual one divided by it; usual is the median of the
            last loads on the same weekday. By default 2. With a cursor, the number is that of
            changes and varies, so by default such loads are not compared. `math.inf` tells nothing.
        max_record_bytes: a larger record is rejected, with only its start kept.
        max_rejects: a load that rejects more records than this fails.
    """

    name: str
    path: str
    records: Callable[[Page], list[Any]]
    params: Params | Callable[[Partition, Window], Params] = field(default_factory=dict)
    paging: Callable[[Page], HttpRequest | str | None] | None = None
    method: Method = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    sends: BodyForm = "json"
    job: Job | None = None
    is_repeatable: bool = False
    max_pages: int | None = None
    max_empty_pages: int = 100
    rules: tuple[Rule, ...] = ()
    key: tuple[str, ...] = ()
    key_is_global: bool = False
    disposition: Disposition | None = None
    deletes: Deletes | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None
    map_record: Callable[[Record], Record | None] | None = None
    personal: Mapping[str, Protection] = field(default_factory=dict)
    cursor: AnyCursor | None = None
    partitions: tuple[Partition, ...] | RowsOf = (Partition(),)
    partition_columns: tuple[str, ...] = ()
    checkpoint_rows: int = 50_000
    checkpoint_seconds: float = 60
    contract: Contract = "evolve"
    max_record_bytes: int = 16 << 20
    max_rejects: int = 0
    max_shrinkage: float = 0.5
    unusual_factor: float | None = None

    @property
    def told_factor(self) -> float:
        """The effective `unusual_factor`."""
        default = math.inf if self.cursor else UNUSUAL_FACTOR
        return default if self.unusual_factor is None else self.unusual_factor

    @property
    def writes(self) -> Disposition:
        """The effective disposition."""
        if isinstance(self.deletes, FullList):
            return "replace"
        return self.disposition or ("merge" if self.key else "append")

    @property
    def cursor_field(self) -> str | None:
        """The field of records whose values move the cursor."""
        return self.record_cursor.field if self.record_cursor else None

    @property
    def record_cursor(self) -> Cursor | IntegerCursor | None:
        """The cursor, if it is a field of records."""
        return None if isinstance(self.cursor, TokenCursor) else self.cursor

    @property
    def token_cursor(self) -> TokenCursor | None:
        """The cursor, if it is a token."""
        return self.cursor if isinstance(self.cursor, TokenCursor) else None

    @property
    def time_cursor(self) -> Cursor | None:
        """The cursor, if it is one of times."""
        return self.cursor if isinstance(self.cursor, Cursor) else None

    def __post_init__(self) -> None:
        """Refuse declarations that would lose or duplicate rows."""
        check_requests(self)
        check_rows(self)
        check_partitions(self)


@dataclass(frozen=True)
class Source:
    """One API.

    Attributes:
        base_url: where the API lives; resource paths are appended to it.
        login: how requests authenticate (`flows.extract.auth`); several logins sign one request
            together. With `Accounts`, each partition names the account that it logs in as.
        hosts: other hosts that links and redirects may lead to, with the login.
        rate: the API's rate limit, shared by all loads and accounts.
        concurrency: how many requests a run may have under way at once.
        connect_timeout_seconds: how long a connection may take to open.
        read_timeout_seconds: the longest silence allowed within a response.
        answer_timeout_seconds: how long one response may take in all, even if bytes keep coming.
        max_wait_seconds: how long one load may wait in all for an API that is down or busy.
        max_body_bytes: the largest response body, decompressed.
        keep_ledger_days: how long the ledger keeps the source's loads, with their schema changes
            and replayed rejects. What later loads need stays, and so do open rejects.
    """

    name: str
    base_url: str
    resources: tuple[Resource, ...]
    login: Login | tuple[Login, ...] | Accounts | None = None
    hosts: tuple[str, ...] = ()
    rate: Rate | None = None
    concurrency: int = 4
    connect_timeout_seconds: float = 10
    read_timeout_seconds: float = 60
    answer_timeout_seconds: float = 300
    max_wait_seconds: float = 300
    max_body_bytes: int = 64 << 20
    keep_ledger_days: int = 400

    def __post_init__(self) -> None:
        """Refuse resources that share a table, or that no load could reach."""
        check_source(self)

    @property
    def logins(self) -> tuple[Login, ...]:
        """All logins that sign its requests, of all accounts."""
        if self.login is None:
            return ()
        if isinstance(self.login, Accounts):
            return tuple(login for its in self.login.logins.values() for login in its)
        return self.login if isinstance(self.login, tuple) else (self.login,)

    @property
    def accounts(self) -> Accounts | None:
        """Its accounts, if it has several."""
        return self.login if isinstance(self.login, Accounts) else None

    @property
    def secret_names(self) -> tuple[str, ...]:
        """The names of all secrets that its logins and its hashes need."""
        names = [login.secret for login in self.logins]
        names += [getattr(login, "refresh_token", "") for login in self.logins]
        for resource in self.resources:
            names += [protection.secret for protection in resource.personal.values()]
        return tuple(dict.fromkeys(filter(None, names)))

    def resource(self, name: str) -> Resource:
        """The resource of that name.

        Raises:
            ConfigurationError: when there is none; the message lists the known ones.
        """
        for resource in self.resources:
            if resource.name == name:
                return resource
        raise ConfigurationError(
            f"Source {self.name!r} has no resource {name!r}. It has: {self.format_resources()}."
        )

    def format_resources(self) -> str:
        """The names of its resources, for messages."""
        return ", ".join(resource.name for resource in self.resources)
