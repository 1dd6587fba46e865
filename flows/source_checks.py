"""Refuses declarations of a source that would lose or duplicate rows, or that no API accepts."""

import codecs
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flows import cursor_formats
from flows.cursors import ENDS, PLACEHOLDER
from flows.deletes import Tombstones
from flows.errors import ConfigurationError
from flows.limits import SYSTEM_COLUMNS, check_least, check_length, check_positive
from flows.partitions import Partition, RowsOf
from flows.personal_data import check_personal
from flows.query_params import form_pairs, query_pairs

if TYPE_CHECKING:
    from flows.source import Accounts, Resource, Source


_COLUMN = re.compile("[a-z][a-z0-9_]{0,62}")


_TABLE = re.compile(r"[^\W\d]\w*")


# Python lists these as text encodings, but they escape characters instead of encoding them.
NOT_FOR_TEXT = frozenset({"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape"})


def check_resource(resource: "Resource") -> None:
    """Refuse a resource that would lose or duplicate rows.

    Raises:
        ConfigurationError: with what to write instead.
    """
    _check_table(resource.name)
    _check_fields(resource.name, "key", resource.key)
    _check_fields(resource.name, "partition_columns", resource.partition_columns)
    _check_disposition(resource)
    _check_deletes(resource)
    if not callable(resource.params):
        query_pairs(resource.name, resource.params)
    _check_placeholders(resource)
    _check_encoding(resource.name, resource.encoding)
    _check_names(resource)
    _check_personal(resource)
    _check_limits(resource)
    _check_body(resource)
    _check_counts(resource)
    _check_job(resource)
    _check_partitions(resource)


def _check_body(resource: "Resource") -> None:
    """Refuse a body that a GET can't have or a form can't hold."""
    if resource.body is not None and resource.method == "GET":
        raise ConfigurationError(f"{resource.name}: a GET has no body. Declare method='POST'.")
    if resource.sends == "form" and resource.body is None:
        raise ConfigurationError(
            f"{resource.name}: it sends a form, but has no body. Declare body={{…}} with its "
            "fields, and method='POST'."
        )
    if resource.sends == "form" and not callable(resource.body):
        form_pairs(resource.name, resource.body)


def _check_job(resource: "Resource") -> None:
    """Refuse to page through the result of a job: a load could not go on between its pages."""
    if resource.job is not None and (resource.paging or resource.max_pages):
        raise ConfigurationError(
            f"{resource.name}: the result of a job is a single body, so it has neither paging nor "
            "max_pages. Remove them; for several files, read them with `zipped`."
        )


def _check_counts(resource: "Resource") -> None:
    """Refuse paging that counts records where the API counts what they are in."""
    is_counted = getattr(resource.paging, "counts", None) == ""
    if is_counted and getattr(resource.records, "changes_count", False):
        raise ConfigurationError(
            f"{resource.name}: its paging counts records, but there may be several or none in an "
            "element of the list that the API counts. Name that list, e.g. "
            'offset(counts="data.orders").'
        )


def _check_disposition(resource: "Resource") -> None:
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


def _check_deletes(resource: "Resource") -> None:
    """Refuse deletions without a key, and those that other records would look like."""
    deletes = resource.deletes
    if deletes is None:
        return
    owner = f"{resource.name}: deletes={type(deletes).__name__}(…)"
    if not resource.key or resource.disposition == "append":
        raise ConfigurationError(
            f"{owner} marks the row with a record's key. Declare a key, and no append."
        )
    if isinstance(deletes, Tombstones):
        _check_tombstones(resource, deletes, owner)
    else:
        _check_full_list(resource, owner)


def _check_tombstones(resource: "Resource", deletes: Tombstones, owner: str) -> None:
    for path in (*resource.key, *resource.personal):
        if deletes.field == path or deletes.field.startswith(f"{path}."):
            raise ConfigurationError(
                f"{owner} reads {path!r}, which is part of its key or replaced by `personal`. Name "
                "a field that says whether the record is deleted."
            )


def _check_full_list(resource: "Resource", owner: str) -> None:
    """Refuse whatever ends a list before all of it is read, or asks for a part."""
    partial = {
        "a cursor": resource.cursor is not None,
        "max_pages": resource.max_pages is not None,
        "a rule that stops reading": any(rule.then == "stop" for rule in resource.rules),
    }
    found = [name for name, is_declared in partial.items() if is_declared]
    if found:
        raise ConfigurationError(
            f"{owner} marks all rows that a load does not read, and with {found[0]} it reads only "
            "some. Remove it; or read new records with a cursor here, and all ids by a resource of "
            "their own (docs/sources.md, Deletions)."
        )
    if resource.disposition == "merge":
        raise ConfigurationError(
            f"{owner} writes a list as a whole, as `replace` does. Remove disposition='merge'."
        )


def _ends_in_path(resource: "Resource") -> list[re.Match[str]]:
    """The placeholders of the path that no value of the partitions fills."""
    parents = resource.partitions
    values = [parents.columns] if isinstance(parents, RowsOf) else [each.values for each in parents]
    found = PLACEHOLDER.finditer(resource.path)
    return [each for each in found if not any(each[1] in names for names in values)]


def _check_token(resource: "Resource") -> None:
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


def _check_placeholders(resource: "Resource") -> None:
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


def _check_end(resource: "Resource", place: str, found: re.Match[str]) -> None:
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


def _ends_of(resource: "Resource") -> tuple[str, ...]:
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


def _check_fields(resource: str, argument: str, names: Sequence[str]) -> None:
    if isinstance(names, str):
        raise ConfigurationError(
            f"{resource}: {argument}={names!r} is text, not a tuple of names. "
            f"Write {argument}=({names!r},)."
        )
    if twice := repeated(names):
        raise ConfigurationError(f"{resource}: {argument} names {twice[0]!r} twice. Remove one.")


def _check_partitions(resource: "Resource") -> None:
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


def _check_rows_of_partitions(resource: "Resource", proposed: tuple[str, ...]) -> None:
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


def _check_partition_columns(resource: "Resource", values: Collection[str]) -> None:
    for name in resource.partition_columns:
        if name not in values:
            raise ConfigurationError(
                f"{resource.name}: partition_columns names {name!r}, but not all of its "
                f"partitions have a value for it. They have: {', '.join(values) or 'no values'}."
            )


def repeated(names: Sequence[str]) -> list[str]:
    """The names that occur more than once, in order."""
    return [name for name, count in Counter(names).items() if count > 1]


def _check_limits(resource: "Resource") -> None:
    owner = resource.name
    pages = {"max_pages": resource.max_pages, "max_empty_pages": resource.max_empty_pages}
    sizes = {
        "checkpoint_rows": resource.checkpoint_rows,
        "max_record_bytes": resource.max_record_bytes,
    }
    check_least(owner, 1, **pages, **sizes)
    check_least(
        owner, 0, checkpoint_seconds=resource.checkpoint_seconds, max_rejects=resource.max_rejects
    )
    check_positive(owner, 1, unusual_factor=resource.unusual_factor)
    _check_shrinkage(owner, resource.max_shrinkage)
    _check_reads_on(resource)


def _check_reads_on(resource: "Resource") -> None:
    """Refuse to read on by a number (`by_number`), often a day later: the records have shifted."""
    reads_on = resource.cursor and resource.max_pages is not None and resource.writes != "replace"
    if reads_on and getattr(resource.paging, "by_number", False):
        raise ConfigurationError(
            f"{resource.name}: with a cursor, a load reads on where max_pages ended the last one. "
            "By offset or page number it would skip records if others were changed or deleted "
            "since then. Remove max_pages, or page by keyset, a link or a token."
        )


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


def _check_personal(resource: "Resource") -> None:
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


def _check_names(resource: "Resource") -> None:
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


def check_source(source: "Source") -> None:
    """Refuse resources that share a table, or that no load could reach.

    Raises:
        ConfigurationError: with what to write instead.
    """
    check_length(f"Source {source.name!r}: its schema", f"raw_{source.name}")
    _check_source_limits(source)
    if not isinstance(source.resources, tuple):
        raise ConfigurationError(
            f"Source {source.name!r}: `resources` is a single resource, not a tuple. "
            "Write resources=(…,)."
        )
    if twice := repeated([resource.name for resource in source.resources]):
        raise ConfigurationError(
            f"Source {source.name!r} has two resources {twice[0]!r}, which would share a raw "
            f"table: {source.format_resources()}. Give each a name of its own."
        )
    for resource in source.resources:
        _check_parents(source, resource)
        _check_job_hosts(source, resource)
        _check_accounts(source, resource)


def _check_source_limits(source: "Source") -> None:
    owner = f"Source {source.name!r}"
    check_positive(
        owner,
        0,
        connect_timeout_seconds=source.connect_timeout_seconds,
        read_timeout_seconds=source.read_timeout_seconds,
        answer_timeout_seconds=source.answer_timeout_seconds,
        max_body_bytes=source.max_body_bytes,
        concurrency=source.concurrency,
        keep_ledger_days=source.keep_ledger_days,
    )
    check_least(owner, 0, max_wait_seconds=source.max_wait_seconds)


def _check_job_hosts(source: "Source", resource: "Resource") -> None:
    """Refuse hosts of a job's downloads that are to get the login as well."""
    with_login = {urlsplit(source.base_url).netloc, urlsplit(source.base_url).hostname}
    for host in resource.job.hosts if resource.job else ():
        if host in with_login or host in source.hosts:
            raise ConfigurationError(
                f"{resource.name}: its job names the host {host!r}, which gets the login of source "
                f"{source.name!r}. Remove it from the job's `hosts`: downloads may lead there."
            )


def _letters(name: str) -> str:
    """What a field and its column have in common: `emailAddress` is stored as `email_address`."""
    return re.sub(r"[\W_]", "", name).lower()


def _check_public(name: str, parents: RowsOf, parent: "Resource") -> None:
    """Refuse to fill requests with a parent's values that are not those the API knows."""
    private = {_letters(parent.names.get(field, field)): field for field in parent.personal}
    for column in parents.columns.values():
        if _letters(column) in private:
            raise ConfigurationError(
                f"{name}: its requests need {column!r} of {parent.name}, which `personal` of "
                f"{parent.name} replaces. Take another column, or remove "
                f"{private[_letters(column)]!r} there."
            )


def _check_parents(source: "Source", resource: "Resource") -> None:
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


def _check_accounts(source: "Source", resource: "Resource") -> None:
    """Refuse partitions without an account, and rows that do not show theirs."""
    if source.accounts is None:
        return
    column = source.accounts.column
    owner = f"{resource.name}: source {source.name!r} has several accounts"
    parents = resource.partitions
    if isinstance(parents, RowsOf):
        supplied = source.resource(parents.resource).names.get(column, column)
        if parents.columns.get(column) != supplied:
            written = {**parents.columns, column: supplied}
            raise ConfigurationError(
                f"{owner}, so its partitions need that of their parent's row. Write "
                f"RowsOf({parents.resource!r}, {written})."
            )
    else:
        _check_accounts_of(owner, source.accounts, parents)
    is_in_key = column in resource.key or not resource.key or resource.key_is_global
    if column not in resource.partition_columns or not is_in_key:
        raise ConfigurationError(
            f"{owner}, so its rows need theirs, or one account overwrites those of another. Name "
            f"{column!r} in partition_columns and key."
        )


def _check_accounts_of(owner: str, accounts: "Accounts", partitions: Sequence[Partition]) -> None:
    """Refuse declared partitions without an account of the source."""
    for partition in partitions:
        if accounts.column not in partition.values:
            raise ConfigurationError(
                f"{owner}, and its partition {partition.name!r} names none. Write "
                "partitions=ACCOUNTS.partitions, where ACCOUNTS is the source's login, or "
                "product(ACCOUNTS.partitions, …)."
            )
        accounts.account_of(partition)
