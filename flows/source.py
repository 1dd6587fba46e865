"""Declarations of a module in `flows/sources/`: a source, its resources, cursors, partitions."""

import codecs
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import product as combinations
from typing import Any, Literal, Protocol
from zoneinfo import ZoneInfo

from flows import cursor_formats
from flows.errors import ConfigurationError
from flows.local_time import DAY
from flows.page import HttpRequest, Method, Page
from flows.personal_data import Protection, check_personal

Record = dict[str, Any]
ParamValue = str | int | bool
Params = Mapping[str, ParamValue | Sequence[ParamValue]]
Disposition = Literal["merge", "append", "replace"]
Contract = Literal["evolve", "freeze", "quarantine"]

# Postgres truncates longer names (https://www.postgresql.org/docs/current/limits.html).
NAME_BYTES = 63
# Every table has them (https://www.postgresql.org/docs/current/ddl-system-columns.html).
SYSTEM_COLUMNS = frozenset({"ctid", "tableoid", "xmin", "xmax", "cmin", "cmax"})
_COLUMN = re.compile("[a-z][a-z0-9_]{0,62}")
# An end of the window in a path, parameter or body (`flows.extract.placeholders`).
PLACEHOLDER = re.compile(r"\{(since|after|until|last|token)(?::([^{}]*))?\}")
_TABLE = re.compile(r"[^\W\d]\w*")

# An API that answers so is busy, and may be asked again (`flows.extract.response`).
BUSY_STATUSES = (408, 425, 429)

# Python lists these as text encodings, but they escape characters instead of encoding them.
NOT_FOR_TEXT = frozenset({"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape"})


@dataclass(frozen=True)
class Window:
    """What to request: a time window, or where an integer cursor goes on.

    Attributes:
        since: the first time, inclusive, in UTC; None leaves this end open.
        until: the end, exclusive, in UTC; None leaves it open.
        number: the first number to request; None requests everything.
        token: what the API gave for the records it has sent so far; None requests everything.
    """

    since: datetime | None = None
    until: datetime | None = None
    number: int | None = None
    token: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing lies between its ends."""
        return self.since is not None and self.until is not None and self.since >= self.until


@dataclass(frozen=True)
class Partition:
    """One slice of a resource, e.g. a city, fetched on its own. `values` fill its requests.

    Attributes:
        is_final: once loaded successfully, it is not requested again, e.g. the file of a past day.
        parent_load_id: the load that last changed the parent's row; only with
            `RowsOf(changed_only=True)`.
    """

    name: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    is_final: bool = False
    parent_load_id: int | None = field(default=None, compare=False)

    @property
    def version(self) -> int | None:
        """What its last successful load has to have seen to be the last one; None for no load."""
        return 0 if self.is_final else self.parent_load_id


def product(*axes: Sequence[Partition]) -> tuple[Partition, ...]:
    """Combine one partition of each axis, in every way, e.g. cities and variables."""
    return tuple(
        Partition(
            "/".join(partition.name for partition in combination),
            {name: value for part in combination for name, value in part.values.items()},
        )
        for combination in combinations(*axes)
    )


@dataclass(frozen=True)
class Cursor:
    """The record field whose time shows which records are new.

    Attributes:
        field: the field's name as the API sends it. Dots name a nested field
            (`meta.updated`), unless the record has a field of exactly that name.
        lookback: how far behind the newest value the next load starts, for late and corrected rows.
        start: where the first load starts; None requests everything.
        step: reads the window in slices of this length, oldest first. Needs `start`; the last slice
            then ends with the last full unit of `align`, by default with yesterday.
        slack: how far in the future a value may be and still move the cursor. Without it, a record
            dated 2999 would end incremental loading.
        format: how the field's values are written: `iso` (8601), `epoch_s`, `epoch_ms`, `epoch_us`,
            or strftime text. Requests have the window's ends in the same form, unless their
            placeholder names another one.
        zone: the time zone of values without an offset, of days, and of times in requests.
        lag: nothing newer than this is requested, and the cursor stays behind it; for APIs whose
            newest records are incomplete.
        align: windows begin and end with full units of this length since midnight, e.g. with full
            quarters of an hour. By default a day, or `step` if that is shorter.
    """

    field: str
    lookback: timedelta = timedelta()
    start: datetime | None = None
    step: timedelta | None = None
    slack: timedelta = timedelta(days=1)
    format: str = "iso"
    zone: str = "UTC"
    lag: timedelta = timedelta()
    align: timedelta | None = None

    @property
    def time_zone(self) -> tzinfo:
        """The time zone."""
        return UTC if self.zone == "UTC" else ZoneInfo(self.zone)

    @property
    def unit(self) -> timedelta:
        """What windows are aligned to."""
        return self.align or min(self.step or DAY, DAY)

    def __post_init__(self) -> None:
        """Refuse a step without a start, a start without a time zone, and unknown formats."""
        owner = f"Cursor({self.field!r})"
        if self.step is not None and self.start is None:
            raise ConfigurationError(f"{owner} has a step, so it needs a start.")
        if self.start is not None and self.start.utcoffset() is None:
            raise ConfigurationError(
                f"{owner}: its start, {self.start}, has no time zone. "
                "Write datetime(…, tzinfo=timezone.utc)."
            )
        _check_positive(owner, timedelta(), step=self.step, align=self.align)
        _check_least(owner, timedelta(), lookback=self.lookback, slack=self.slack, lag=self.lag)
        if self.align is not None and DAY % self.align:
            raise ConfigurationError(
                f"{owner}: align={self.align} is not a part of a day. Use e.g. a day, an hour or "
                "five minutes."
            )
        cursor_formats.check(owner, self.format)
        _check_zone(owner, self.zone)


def _check_zone(owner: str, zone: str) -> None:
    try:
        ZoneInfo(zone)
    except (LookupError, ValueError, OSError) as error:
        raise ConfigurationError(
            f"{owner}: there is no time zone {zone!r}. Use a name such as 'Europe/Berlin' "
            "(https://en.wikipedia.org/wiki/List_of_tz_database_time_zones)."
        ) from error


@dataclass(frozen=True)
class IntegerCursor:
    """The record field whose number shows which records are new: an id or a sequence number.

    The next load starts after the highest number so far.

    Attributes:
        field: as for `Cursor`.
        lookback: how many numbers behind the highest one are requested again. Needed if numbers
            come late or repeat: with 0, a record whose number is not higher is never requested.
        start: the first number that the first load requests; None requests everything.
    """

    field: str
    lookback: int = 0
    start: int | None = None

    def __post_init__(self) -> None:
        """Refuse a negative lookback."""
        _check_least(f"IntegerCursor({self.field!r})", 0, lookback=self.lookback)


@dataclass(frozen=True)
class TokenCursor:
    """A token of the API that stands for all it has sent: a sync token, or the link to a delta.

    The last page of a load has it, and the next load sends it: the API then answers with what has
    changed since. It is kept once a load has read everything.

    Attributes:
        field: where the last page's body has the token; dots name a nested field.
        header: the response header that has it, instead of `field`.
        is_link: it is the address of the next load's first request. Otherwise `params`, `headers`
            or `body` say where it goes, with `{token}`.
        expired: the statuses with which the API refuses a token that is too old: of 400 to 499,
            but none that is retried. The load then reads everything, without a token.
    """

    field: str = ""
    header: str = ""
    is_link: bool = False
    expired: tuple[int, ...] = (410,)

    def __post_init__(self) -> None:
        """Refuse a token that stands nowhere or in two places, and statuses that refuse none."""
        for status in self.expired:
            if status not in range(400, 500) or status in BUSY_STATUSES:
                raise ConfigurationError(
                    f"{self}: {status} never means that a token is too old. Name statuses from "
                    f"400 to 499, but not {', '.join(map(str, BUSY_STATUSES))}: they are retried."
                )
        if bool(self.field) == bool(self.header):
            raise ConfigurationError(
                f"{self}: say where the token stands, in a field of the last page or in a header "
                'of its response: TokenCursor("nextSyncToken") or TokenCursor(header="X-Sync").'
            )


AnyCursor = Cursor | IntegerCursor | TokenCursor


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
class RowsOf:
    """Partitions made of another resource's rows, one per distinct row of the columns named.

    Attributes:
        resource: the parent, of the same source; it is loaded first.
        columns: the names of the partition's values, each with the column of the parent's raw table
            that supplies it, e.g. `{"order_id": "id"}`.
        where: only for the parent's rows that have this value, or one of these, in a column, e.g.
            `{"state": ["open", "paid"], "lines_count": 3}`; None stands for null.
        changed_only: only for rows that are new or changed since their partition was last loaded
            successfully. For APIs that change a parent whenever one of its children changes.
    """

    resource: str
    columns: Mapping[str, str]
    where: Mapping[str, Any] = field(default_factory=dict)
    changed_only: bool = False

    def __post_init__(self) -> None:
        """Refuse partitions without a value to distinguish them, and conditions no row meets."""
        if not self.columns:
            raise ConfigurationError(
                f"RowsOf({self.resource!r}) names no columns. Name at least one, e.g. "
                f'RowsOf({self.resource!r}, {{"{self.resource}_id": "id"}}).'
            )
        for column, values in self.where.items():
            if not values and isinstance(values, list | tuple | set | frozenset):
                raise ConfigurationError(
                    f"RowsOf({self.resource!r}): `where` allows no value of {column!r}. Name one, "
                    "or remove the column."
                )


@dataclass(frozen=True)
class Rate:
    """How often an API may be called: at most `requests` in any `seconds`."""

    requests: int
    seconds: float = 1

    def __post_init__(self) -> None:
        """Refuse rates that allow no request."""
        if self.requests < 1 or self.seconds <= 0:
            raise ConfigurationError(f"{self} allows no requests: give it at least one.")


class Login(Protocol):
    """Authenticates requests (`flows.extract.auth`)."""

    @property
    def secret(self) -> str:
        """The name under which its secret is kept (`blocks.secrets`)."""

    @property
    def param(self) -> str:
        """The query parameter that holds the secret; empty where none does."""

    def sign(self, request: Any, value: str) -> None:
        """Add the secret's value to a request that is about to be sent."""


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
        body: what to POST as JSON, or a function of the partition and the window that returns it.
            Its texts may name the window's ends, as those of `params`. What a function returns is
            sent as it is.
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
        max_shrinkage: the share of its rows (0 to 1) that a partition may lose in one `replace`
            or full refresh; a load that would remove more fails and changes nothing.
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
    is_repeatable: bool = False
    max_pages: int | None = None
    max_empty_pages: int = 100
    rules: tuple[Rule, ...] = ()
    key: tuple[str, ...] = ()
    key_is_global: bool = False
    disposition: Disposition | None = None
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

    @property
    def writes(self) -> Disposition:
        """The effective disposition."""
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
        _check_table(self.name)
        _check_fields(self.name, "key", self.key)
        _check_fields(self.name, "partition_columns", self.partition_columns)
        _check_disposition(self)
        if not callable(self.params):
            query_pairs(self.name, self.params)
        _check_placeholders(self)
        _check_encoding(self.name, self.encoding)
        _check_names(self)
        _check_personal(self)
        _check_limits(self)
        if self.body is not None and self.method == "GET":
            raise ConfigurationError(f"{self.name}: a GET has no body. Declare method='POST'.")
        _check_partitions(self)


def _check_disposition(resource: Resource) -> None:
    _check_token(resource)
    if resource.writes == "merge" and not resource.key:
        raise ConfigurationError(f"{resource.name}: merge needs a key.")
    if resource.writes != "append" or resource.cursor is None:
        return
    cursor = resource.time_cursor
    remedy = "Declare a key" + (", or give the cursor a step and no lookback." if cursor else ".")
    if cursor is None or cursor.lookback or cursor.step is None:
        raise ConfigurationError(
            f"{resource.name}: append with a cursor duplicates rows at its edge. {remedy}"
        )


# The ends of a window that each kind of cursor has.
ENDS: Mapping[type, tuple[str, ...]] = {
    Cursor: ("since", "after", "until", "last"),
    IntegerCursor: ("since", "after"),
    TokenCursor: ("token",),
}


def _ends_in_path(resource: Resource) -> list[re.Match[str]]:
    """The placeholders of the path that no value of the partitions fills."""
    parents = resource.partitions
    values = [parents.columns] if isinstance(parents, RowsOf) else [each.values for each in parents]
    found = PLACEHOLDER.finditer(resource.path)
    return [each for each in found if not any(each[1] in names for names in values)]


def _check_token(resource: Resource) -> None:
    """Refuse what makes no sense for changes since a token, and a token that is never sent."""
    cursor = resource.token_cursor
    if cursor is None:
        return
    owner = f"{resource.name}: its cursor is a token"
    if resource.writes == "replace":
        raise ConfigurationError(
            f"{owner}, with which the API sends only changes, and `replace` would delete all other "
            "rows. Declare a key and no disposition, or remove the cursor."
        )
    if resource.max_pages is not None:
        raise ConfigurationError(
            f"{owner}, which is kept once everything is read: with max_pages, it never is. Remove "
            "max_pages."
        )
    if any(found[1] == "token" for found in _ends_in_path(resource)):
        raise ConfigurationError(
            f"{owner}, and its path names {{token}}, which the first load does not have. Name it "
            "in params, headers or body, or set is_link=True if the token is an address."
        )
    declared = (resource.params, resource.headers, resource.body)
    is_named = any(callable(each) or "{token" in repr(each) for each in declared)
    if not (cursor.is_link or is_named):
        raise ConfigurationError(
            f"{owner} that no request names. Write e.g. params={{'syncToken': '{{token}}'}}, or "
            "is_link=True if it is an address."
        )


def _check_placeholders(resource: Resource) -> None:
    """Refuse ends of a window that the cursor will never have, and unknown formats of times."""
    params, body = (
        {} if callable(declared) else declared for declared in (resource.params, resource.body)
    )
    places = {
        "path": _ends_in_path(resource) if resource.cursor else [],
        "params": PLACEHOLDER.finditer(repr(params)),
        "headers": PLACEHOLDER.finditer(repr(resource.headers)),
        "body": _ends_in_body(body, _ends_of(resource)),
    }
    for place, ends in places.items():
        for found in ends:
            _check_end(resource, place, found)


def _check_end(resource: Resource, place: str, found: re.Match[str]) -> None:
    name, form = found.groups()
    known = _ends_of(resource)
    escape = " A body that a function returns is sent as it is." if place == "body" else ""
    if resource.cursor is None:
        raise ConfigurationError(
            f"{resource.name}: it names {found[0]} in its {place}, but it has no cursor. Declare "
            f"one.{escape}"
        )
    if name not in known:
        raise ConfigurationError(
            f"{resource.name}: it names {found[0]} in its {place}, but its "
            f"{type(resource.cursor).__name__} only has "
            f"{', '.join(f'{{{each}}}' for each in known)}.{escape}"
        )
    if resource.time_cursor is not None and form:
        cursor_formats.check(f"{resource.name}: {found[0]}", form)


def _ends_of(resource: Resource) -> tuple[str, ...]:
    """The placeholders that the resource's cursor fills."""
    return ENDS[type(resource.cursor)] if resource.cursor else ()


def _ends_in_body(body: Any, known: Collection[str]) -> Iterator[re.Match[str]]:
    """The placeholders of a body's texts.

    Those that the cursor does not fill are left out if they may be something else: GraphQL asks for
    an object's fields with `me {token}`.
    """
    if isinstance(body, str):
        for found in PLACEHOLDER.finditer(body):
            before, after = body[: found.start()][-1:], body[found.end() :][:1]
            is_value = before == after and before in ("", "'", '"')
            if found[1] in known or is_value:
                yield found
    elif isinstance(body, Mapping):
        yield from _ends_in_body([*body.values()], known)
    elif isinstance(body, list | tuple):
        for each in body:
            yield from _ends_in_body(each, known)


def _check_table(name: str) -> None:
    if not _TABLE.fullmatch(name) or name != name.lower():
        raise ConfigurationError(
            f"The resource name {name!r} is not a valid raw table name. Use a letter or _, then "
            "letters, digits and _, all in lower case. The resource's `path` may be anything."
        )
    check_length("The resource name", name)


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


def _check_fields(resource: str, argument: str, names: Sequence[str]) -> None:
    if isinstance(names, str):
        raise ConfigurationError(
            f"{resource}: {argument}={names!r} is text, not a tuple of names. "
            f"Write {argument}=({names!r},)."
        )
    if twice := repeated(names):
        raise ConfigurationError(f"{resource}: {argument} names {twice[0]!r} twice. Remove one.")


def _check_partitions(resource: Resource) -> None:
    """Refuse partitions that share a name, or whose rows can't be distinguished."""
    if resource.key_is_global and not resource.key:
        raise ConfigurationError(
            f"{resource.name}: key_is_global is set, but there is no key. Declare a key."
        )
    if isinstance(resource.partitions, RowsOf):
        _check_partition_columns(resource, resource.partitions.columns)
        _check_rows_of_partitions(resource, tuple(resource.partitions.columns))
        return
    if not resource.partitions:
        raise ConfigurationError(f"{resource.name}: needs at least one partition.")
    if twice := repeated([partition.name for partition in resource.partitions]):
        raise ConfigurationError(
            f"{resource.name}: it has two partitions {twice[0]!r}, which would share a cursor. "
            "Give each a name of its own."
        )
    for partition in resource.partitions:
        _check_partition_columns(resource, partition.values)
    if len(resource.partitions) > 1:
        _check_rows_of_partitions(resource, _distinguishing_columns(resource.partitions))
        check_told_apart(resource.name, resource.partitions, resource.partition_columns)


def _check_rows_of_partitions(resource: Resource, proposed: tuple[str, ...]) -> None:
    """Refuse a declaration that does not identify each row's partition, or whose key may repeat.

    Otherwise one partition overwrites the rows of another: in a merge by their key, and in a
    replace of all of a partition's rows.
    """
    columns = resource.partition_columns or proposed
    if not columns:
        raise ConfigurationError(
            f"{resource.name}: its partitions have no values that distinguish their rows. Give "
            "each partition a value, and name it in partition_columns."
        )
    missing = [name for name in columns if name not in resource.key]
    key = (*missing, *resource.key)
    writes = [] if resource.partition_columns else [f"partition_columns={columns!r}"]
    remedy = ""
    if resource.key and missing and not resource.key_is_global:
        writes.append(f"key={key!r}")
        remedy = (
            f"; or, instead of the longer key, key_is_global=True, if the API never repeats "
            f"{resource.key!r} in another partition"
        )
    if writes:
        raise ConfigurationError(
            f"{resource.name}: rows of one partition could overwrite those of another. "
            f"Write {' and '.join(writes)}{remedy}."
        )


def _distinguishing_columns(partitions: Sequence[Partition]) -> tuple[str, ...]:
    """The name of one value that differs in each partition, or the names of all values."""
    names = tuple(partitions[0].values)
    for name in names:
        if len({str(partition.values.get(name)) for partition in partitions}) == len(partitions):
            return (name,)
    return names


def check_told_apart(
    resource: str, partitions: Sequence[Partition], columns: Sequence[str]
) -> None:
    """Refuse partitions whose rows have the same values in their partition_columns.

    Raises:
        ConfigurationError: with two such partitions, and the values to choose from.
    """
    known: dict[tuple[str, ...], Partition] = {}
    for partition in partitions:
        other = known.setdefault(tuple(str(partition.values[name]) for name in columns), partition)
        if other is not partition:
            raise ConfigurationError(
                f"{resource}: the partitions {other.name!r} and {partition.name!r} have the same "
                f"values of partition_columns ({', '.join(columns)}). Name more columns. "
                f"They have: {', '.join(partition.values) or 'no values'}."
            )


def _check_partition_columns(resource: Resource, values: Collection[str]) -> None:
    for name in resource.partition_columns:
        if name not in values:
            raise ConfigurationError(
                f"{resource.name}: partition_columns names {name!r}, but not all of its "
                f"partitions have a value for it. They have: {', '.join(values) or 'no values'}."
            )


def repeated(names: Sequence[str]) -> list[str]:
    """The names that occur more than once, in order."""
    return [name for name, count in Counter(names).items() if count > 1]


def query_pairs(resource: str, params: Params) -> list[tuple[str, str]]:
    """The query parameters as text, in their order; a list gives one pair per value.

    Raises:
        ConfigurationError: when a value is not a string, an integer, a boolean or a list of them.
    """
    return [
        (name, _query_text(resource, name, value))
        for name, values in params.items()
        for value in (values if isinstance(values, list | tuple) else [values])
    ]


def _query_text(resource: str, name: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int):
        return str(value)
    raise ConfigurationError(
        f"{resource}: the query parameter {name!r} has the value {value!r}, of type "
        f"{type(value).__name__}. Give it as a string, an integer, a boolean, or a list of them."
    )


def _check_limits(resource: Resource) -> None:
    owner = resource.name
    pages = {"max_pages": resource.max_pages, "max_empty_pages": resource.max_empty_pages}
    sizes = {
        "checkpoint_rows": resource.checkpoint_rows,
        "max_record_bytes": resource.max_record_bytes,
    }
    _check_least(owner, 1, **pages, **sizes)
    _check_least(
        owner, 0, checkpoint_seconds=resource.checkpoint_seconds, max_rejects=resource.max_rejects
    )
    _check_shrinkage(owner, resource.max_shrinkage)
    _check_reads_on(resource)


def _check_reads_on(resource: Resource) -> None:
    """Refuse to read on by a number (`by_number`), often a day later: the records have shifted."""
    reads_on = resource.cursor and resource.max_pages is not None and resource.writes != "replace"
    if reads_on and getattr(resource.paging, "by_number", False):
        raise ConfigurationError(
            f"{resource.name}: with a cursor, a load reads on where max_pages ended the last one. "
            "By offset or page number it would skip records if others were changed or deleted "
            "since then. Remove max_pages, or page by keyset, a link or a token."
        )


def _check_least(owner: str, least: Any, **limits: Any) -> None:
    """Refuse limits below `least`, and NaN; None means no limit."""
    for name, value in limits.items():
        if value is not None and not value >= least:
            raise ConfigurationError(
                f"{owner}: {name}={value} is out of range. Use {least or 0} or more."
            )


def _check_positive(owner: str, zero: Any, **limits: Any) -> None:
    for name, value in limits.items():
        if value is not None and not value > zero:
            raise ConfigurationError(f"{owner}: {name}={value} is out of range. Use more than 0.")


def _check_shrinkage(resource: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ConfigurationError(
            f"{resource}: max_shrinkage={share} is not a share from 0 to 1. 0.5 lets a load remove "
            "half of the rows."
        )


def _check_encoding(resource: str, encoding: str | None) -> None:
    if encoding is None:
        return
    try:
        "".encode(encoding)
        is_known = codecs.lookup(encoding).name not in NOT_FOR_TEXT
    except (LookupError, ValueError):
        is_known = False
    if not is_known:
        raise ConfigurationError(
            f"{resource}: Python doesn't know the encoding {encoding!r}. Choose one of "
            "https://docs.python.org/3/library/codecs.html#standard-encodings, e.g. cp1252."
        )


def _check_personal(resource: Resource) -> None:
    """Refuse to protect the cursor, whose values are compared, and what check_personal refuses."""
    cursor = resource.cursor_field or ""
    for path in resource.personal:
        if cursor == path or cursor.startswith(f"{path}."):
            raise ConfigurationError(
                f"{resource.name}: `personal` names {path!r}, which is its cursor. Loads compare "
                "and store its values, so it can't be protected."
            )
    # Of `keyset`, whose next request has the last record's value of this field in it.
    paged_by = getattr(resource.paging, "record_field", "")
    if paged_by in resource.personal:
        raise ConfigurationError(
            f"{resource.name}: `personal` names {paged_by!r}, by which its paging goes on. "
            "Requests and resume points contain its values, so it can't be protected. Page by "
            "another field."
        )
    check_personal(resource.name, resource.personal, set(resource.key))


def _check_names(resource: Resource) -> None:
    columns = list(resource.names.values())
    for field_name, column in resource.names.items():
        problem = ""
        if not _COLUMN.fullmatch(column) or column in SYSTEM_COLUMNS:
            problem = (
                "is not a valid column name. Use a lower-case letter, then up to 62 of a-z, 0-9 "
                "and _; Postgres' system columns are reserved"
            )
        elif columns.count(column) > 1:
            problem = "is used twice. Give each field its own column"
        elif field_name != column and column in {*resource.key, *resource.partition_columns}:
            problem = "belongs to another field, in its key or partition_columns"
        if problem:
            raise ConfigurationError(
                f"{resource.name}: `names` gives {field_name!r} the column {column!r}, which "
                f"{problem}."
            )


@dataclass(frozen=True)
class Source:
    """One API.

    Attributes:
        base_url: where the API lives; resource paths are appended to it.
        login: how requests authenticate (`flows.extract.auth`); several logins sign one request
            together.
        hosts: other hosts that links and redirects may lead to, with the login.
        rate: the API's rate limit, shared by all loads.
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
    login: Login | tuple[Login, ...] | None = None
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
        check_length(f"Source {self.name!r}: its schema", f"raw_{self.name}")
        _check_source_limits(self)
        if isinstance(self.resources, Resource):
            raise ConfigurationError(
                f"Source {self.name!r}: `resources` is a single resource, not a tuple. "
                "Write resources=(…,)."
            )
        if twice := repeated([resource.name for resource in self.resources]):
            raise ConfigurationError(
                f"Source {self.name!r} has two resources {twice[0]!r}, which would share a raw "
                f"table: {self._format_resources()}. Give each a name of its own."
            )
        for resource in self.resources:
            _check_parents(self, resource)

    @property
    def logins(self) -> tuple[Login, ...]:
        """All logins that sign its requests."""
        if self.login is None:
            return ()
        return self.login if isinstance(self.login, tuple) else (self.login,)

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
            f"Source {self.name!r} has no resource {name!r}. It has: {self._format_resources()}."
        )

    def _format_resources(self) -> str:
        return ", ".join(resource.name for resource in self.resources)


def _check_source_limits(source: Source) -> None:
    owner = f"Source {source.name!r}"
    _check_positive(
        owner,
        0,
        connect_timeout_seconds=source.connect_timeout_seconds,
        read_timeout_seconds=source.read_timeout_seconds,
        answer_timeout_seconds=source.answer_timeout_seconds,
        max_body_bytes=source.max_body_bytes,
        concurrency=source.concurrency,
        keep_ledger_days=source.keep_ledger_days,
    )
    _check_least(owner, 0, max_wait_seconds=source.max_wait_seconds)


def _letters(name: str) -> str:
    """What a field and its column have in common: `emailAddress` is stored as `email_address`."""
    return re.sub(r"[\W_]", "", name).lower()


def _check_public(name: str, parents: RowsOf, parent: Resource) -> None:
    """Refuse to fill requests with a parent's values that are not those the API knows."""
    private = {_letters(parent.names.get(field, field)): field for field in parent.personal}
    for column in parents.columns.values():
        if _letters(column) in private:
            raise ConfigurationError(
                f"{name}: its requests need {column!r} of {parent.name}, which `personal` of "
                f"{parent.name} replaces. Take another column, or remove "
                f"{private[_letters(column)]!r} there."
            )


def _check_parents(source: Source, resource: Resource) -> None:
    """Refuse a resource with a missing parent or with circular parents."""
    line = [resource.name]
    while isinstance(resource.partitions, RowsOf):
        parents = resource.partitions
        try:
            resource = source.resource(parents.resource)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"{resource.name} takes its partitions from {parents.resource!r}. {error}"
            ) from error
        _check_public(line[-1], parents, resource)
        line.append(resource.name)
        if resource.name in line[:-1]:
            raise ConfigurationError(
                f"Source {source.name!r}: these resources depend on each other's rows, so none "
                f"could be loaded: {' → '.join(line)}. Give one of them partitions of its own."
            )
