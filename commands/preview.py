"""`make preview`: show a resource's first records and raw table columns.

Writes nothing but the newest refresh token, of a login that has one.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from commands.waits import shortened
from deployments.env_file import read_environment
from flows import sources
from flows.errors import ConfigurationError, EltError
from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.extract.tokens import ShareToken
from flows.guards import with_guards
from flows.load.batch import RecordBatch
from flows.load.column_names import column_names
from flows.load.map_record import check_values, map_records
from flows.load.page_pieces import finder
from flows.local_time import later
from flows.page import Page
from flows.redaction import redact
from flows.source import IntegerCursor, Partition, Resource, RowsOf, Source, Window

SHOWN = 3
LONGEST = 300


def main() -> int:
    """Request one page and print it; 1 with a readable reason if that fails."""
    parser = argparse.ArgumentParser(prog="make preview", description=__doc__)
    parser.add_argument("--source", required=True)
    parser.add_argument("--resource", default="", help="by default the first one")
    parser.add_argument("--partition", default="", help='values for a child, e.g. "order_id=1"')
    arguments = parser.parse_args()
    read_environment()
    try:
        source = sources.find(arguments.source)
        name = arguments.resource or source.resources[0].name
        resource = source.resource(name)
        partition = _partition(resource, arguments.partition)
        page = first_page(source, resource, partition)
        print(described(source, resource, page, partition))
    except EltError as error:
        print(f"FAILED: {error}")
        return 1
    return 0


def first_page(source: Source, resource: Resource, partition: Partition) -> Page:
    """The first page of a resource, with the login from the environment.

    Raises:
        ConfigurationError: when there is no page.
        EltError: as `Client.get` does.
    """
    source = shortened(source)
    with Client(source, share_token=refresh_tokens(source)) as client:
        pages = read_pages(client, source, resource, partition, _window(resource))
        page = next((page for page in pages if not page.is_mark), None)
    if page is None:
        raise ConfigurationError(f"{source.name}.{resource.name} has no request to send.")
    return page


def refresh_tokens(source: Source) -> ShareToken | None:
    """Keeps refresh tokens in the warehouse, as loads do; None without its address."""
    has_one = any(getattr(login, "refresh_token", "") for login in source.logins)
    if not has_one or not os.environ.get("WAREHOUSE_URL"):
        return None
    # Imported here, because Prefect takes seconds.
    from blocks import warehouse
    from flows.postgres import connection_url
    from flows.refresh_tokens import RefreshTokens

    name = warehouse.URL_VARIABLE
    return RefreshTokens(warehouse.Warehouse(connection_url.parse(os.environ[name], name)).connect)


def _window(resource: Resource) -> Window:
    """The first step of a resource that is read in steps; for others, no limits."""
    cursor = resource.record_cursor
    if cursor is None or cursor.start is None:
        return Window()
    if isinstance(cursor, IntegerCursor):
        return Window(number=cursor.start)
    step = cursor.step or timedelta(days=1)
    return Window(cursor.start, min(later(cursor.start, step, cursor.time_zone), datetime.now(UTC)))


def _partition(resource: Resource, text: str) -> Partition:
    if text:
        values = dict(pair.split("=", 1) for pair in text.split(",") if "=" in pair)
        return Partition(text, values)
    if isinstance(resource.partitions, RowsOf):
        wanted = ",".join(f"{name}=…" for name in resource.partitions.columns)
        raise ConfigurationError(
            f"{resource.name} is read per row of {resource.partitions.resource}: name one with "
            f'PARTITION="{wanted}".'
        )
    return resource.partitions[0]


def described(source: Source, resource: Resource, page: Page, partition: Partition) -> str:
    """A readable summary of a partition's first page."""
    resource = with_guards(resource)
    found = [] if page.is_empty else finder(page, resource)(page)
    records = _map(resource, found)
    follows = page.resume.url if page.resume else None
    lines = [
        redact(str(page.request or page.url)),
        f"  {page.content_type}, {len(page.body):,} bytes, {len(found)} records; "
        + (f"next: {follows}" if follows else "no page follows"),
    ]
    omitted = len(found) - len(records)
    lines += [f"  map_record omits {omitted} of them"] if omitted else []
    good = [record for record in records if isinstance(record, dict) and record]
    if good:
        own = {name: partition.values[name] for name in resource.partition_columns}
        good = [{**own, **record} for record in good]
        natural = RecordBatch(good).natural
        names = column_names(natural, resource.names)
        lines += ["", f"raw_{source.name}.{resource.name} would have"]
        lines += [
            f"  {names[field]:<32}{resource.columns.get(names[field], kind or 'text'):<20}"
            f"{_example(good, field)}"
            for field, kind in natural.items()
        ]
    lines += ["", f"The first {min(SHOWN, len(records))} of them:"] if records else []
    lines += [f"  {_cut(_as_json(record))}" for record in records[:SHOWN]]
    return "\n".join(lines)


def _map(resource: Resource, found: Sequence[Any]) -> list[Any]:
    map_record = resource.map_record
    records = [*map_records(resource.name, map_record, found).values()] if map_record else [*found]
    check_values(resource.name, "map_record" if map_record else "records", records)
    return records


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _example(records: list[dict[str, object]], field: str) -> str:
    values = (record.get(field) for record in records)
    return _cut(_as_json(next((value for value in values if value is not None), None)), 40)


def _cut(text: str, longest: int = LONGEST) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


if __name__ == "__main__":
    sys.exit(main())
