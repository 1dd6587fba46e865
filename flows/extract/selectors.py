"""Selectors: find the records of a page, in JSON, lines of JSON, CSV, XML or an archive of them."""

from flows.errors import BadPayloadError
from flows.extract.csv_records import Csv, csv_rows
from flows.extract.json_records import (
    ColumnsAt,
    Lines,
    RecordAt,
    RecordsAt,
    columns_at,
    ndjson,
    record_at,
)
from flows.extract.shaped_records import (
    KeyedAt,
    NestedAt,
    RowsAt,
    keyed_at,
    records_at,
    rows_at,
)
from flows.extract.xml_records import XmlAt, xml_at
from flows.extract.zipped_records import Zipped, zipped
from flows.page import Page

__all__ = [
    "columns_at",
    "csv_rows",
    "keyed_at",
    "ndjson",
    "record_at",
    "records_at",
    "rows_at",
    "xml_at",
    "zipped",
]

# The selectors that return every record of a page; a source's own function may not.
RECORDS = (
    RecordsAt,
    RecordAt,
    ColumnsAt,
    NestedAt,
    KeyedAt,
    RowsAt,
    Lines,
    Csv,
    XmlAt,
    Zipped,
)

# Values of an `errors` member that mean there are none.
NO_ERRORS = frozenset({b"[]", b"null", b"{}", b'""', b"false", b"0"})


def check_errors(page: Page) -> None:
    """Refuse a response that has `errors` beside its `data`, such as a partial one of GraphQL.

    Raises:
        BadPayloadError: unless a rule of the source accepts the response.
    """
    if page.is_accepted or not page.members or not {"data", "errors"} <= page.members.keys():
        return
    errors = bytes(page.members["errors"])
    if errors.strip() not in NO_ERRORS:
        raise BadPayloadError(
            f"{page.url} answered with errors beside its data: {page.start_of(errors)!r}. Correct "
            "the request, ask the API's owner, or declare Rule('accept', body=…) if the data is "
            "valid despite such errors."
        )
