"""The windows of a backfill: those that a range of days has, and those that the ledger lacks."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date, timedelta

from blocks.warehouse import Warehouse
from flows.errors import ConfigurationError
from flows.load import ledger
from flows.load.ledger import Address
from flows.load.partitions import partitions_of
from flows.load.reset import forget_lost_rows
from flows.load_tasks import midnight
from flows.source import Partition, Resource, Source, Window


@dataclass(frozen=True)
class Slice:
    """A window of one partition, loaded as a partition with its own ledger entry and checkpoint."""

    resource: Resource
    partition: Partition
    window: Window

    @property
    def key(self) -> tuple[str, str]:
        """The names of its resource and its partition, as in the ledger."""
        return self.resource.name, self.partition.name


def readable_by_date(source: Source, names: Sequence[str]) -> list[Resource]:
    """The resources that can be read by date: those with a `Cursor` and not written by `replace`.

    Raises:
        ConfigurationError: when a named resource can't be read by date, or none can.
    """
    chosen = [source.resource(name) for name in names] or list(source.resources)
    readable = [each for each in chosen if each.time_cursor and each.writes != "replace"]
    if not readable or (names and len(readable) < len(chosen)):
        others = ", ".join(each.name for each in chosen if each not in readable)
        raise ConfigurationError(
            f"{source.name}: {others} can't be read by date: a `cursor` is missing or not one of "
            "times, or `replace` reads everything anyway. Remove them from `resources`, or run "
            "`elt`."
        )
    return readable


def split(since: date, until: date, days: int) -> list[Window]:
    """Split the range into windows of that many days; the last one ends at `until`.

    Raises:
        ConfigurationError: when the range contains no day.
    """
    if since >= until:
        raise ConfigurationError(
            f"since ({since}) must be before until ({until}), which is the first day that is not "
            "loaded."
        )
    count = -(-(until - since).days // days)
    starts = [since + timedelta(days * number) for number in range(count)]
    return [
        Window(midnight(start), midnight(min(start + timedelta(days), until))) for start in starts
    ]


def slices_of(
    database: Warehouse, source: Source, resources: Sequence[Resource], windows: Sequence[Window]
) -> list[Slice]:
    """All windows of all partitions of the resources."""
    with closing(database.connect()) as connection:
        return [
            Slice(resource, replace(partition, name=_slice_name(partition, window)), window)
            for resource in resources
            for partition in partitions_of(connection, source.name, resource)
            for window in windows
        ]


def missing(database: Warehouse, source: Source, slices: Sequence[Slice]) -> list[Slice]:
    """The slices that no earlier backfill has loaded."""
    names = {each.resource.name for each in slices}
    with database.transaction() as cursor:
        ledger.prepare(cursor, f"raw_{source.name}")
        for name in names:
            forget_lost_rows(cursor, Address(source.name, name, ""))
        loaded = {name: ledger.backfilled(cursor, source.name, name) for name in names}
    return [each for each in slices if each.partition.name not in loaded[each.resource.name]]


def _slice_name(partition: Partition, window: Window) -> str:
    """E.g. `London 2024-01-01..2024-02-01`; only the days if the partition has no name."""
    return f"{partition.name} {window.since:%Y-%m-%d}..{window.until:%Y-%m-%d}".strip()
