"""Refuses resources that do not fit together, or to their source."""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flows.checks.rows import letters, repeated
from flows.errors import ConfigurationError
from flows.limits import check_hosts, check_least, check_length, check_positive
from flows.partitions import Partition, RowsOf

if TYPE_CHECKING:
    from flows.source import Accounts, Resource, Source


def check_source(source: "Source") -> None:
    """Refuse resources that share a table, or that no load could reach.

    Raises:
        ConfigurationError: with what to write instead.
    """
    check_length(f"Source {source.name!r}: its schema", f"raw_{source.name}")
    _check_source_limits(source)
    check_hosts(f"Source {source.name!r}", source.hosts)
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
    if resource.job is None:
        return
    name, port = _place(urlsplit(source.base_url).netloc)
    with_login = [(name, port or 443), *map(_place, source.hosts)]
    for host in resource.job.hosts:
        if any(_share_addresses(_place(host), place) for place in with_login):
            raise ConfigurationError(
                f"{resource.name}: its job names the host {host!r}, which gets the login of source "
                f"{source.name!r}. Remove it from the job's `hosts`: downloads may lead there."
            )


def _place(host: str) -> tuple[str, int | None]:
    """The name of a host in lower case, and its port; without one, it has all ports."""
    parts = urlsplit(f"//{host}")
    return (parts.hostname or "").rstrip("."), parts.port


def _share_addresses(one: tuple[str, int | None], other: tuple[str, int | None]) -> bool:
    """Whether two hosts have an address in common; 80 and 443 count as equal."""
    ports = {80 if port == 443 else port for port in (one[1], other[1])}
    return one[0] == other[0] and (None in ports or len(ports) == 1)


def _check_public(name: str, parents: RowsOf, parent: "Resource") -> None:
    """Refuse to fill requests with a parent's values that are not those the API knows."""
    private = {letters(parent.names.get(field, field)): field for field in parent.personal}
    for column in parents.columns.values():
        if letters(column) in private:
            raise ConfigurationError(
                f"{name}: its requests need {column!r} of {parent.name}, which `personal` of "
                f"{parent.name} replaces. Take another column, or remove "
                f"{private[letters(column)]!r} there."
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
