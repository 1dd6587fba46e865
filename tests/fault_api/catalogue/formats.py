"""Body formats: the same rows as the bytes of one answer, all at once."""

import csv
import gzip as gzipped
import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from xml.sax.saxutils import escape

from tests.fault_api.catalogue.items import Row
from tests.fault_api.exchange import Answer, AskError, as_json

Rows = Sequence[Row]


def answer(name: str, rows: Rows) -> Answer:
    """The rows in the format of that name.

    Raises:
        AskError: when there is no such format.
    """
    if name not in FORMATS:
        raise AskError(f"There is no format {name!r}; there are {', '.join(FORMATS)}.", 404)
    return FORMATS[name](rows)


def json_list(rows: Rows) -> Answer:
    """The rows at the root."""
    return as_json(rows)


def json_object(rows: Rows) -> Answer:
    """The first row alone."""
    return as_json(rows[0])


def json_columns(rows: Rows) -> Answer:
    """One array per field, null where a row has no such field."""
    return as_json({"columns": {name: [row.get(name) for row in rows] for name in _fields(rows)}})


def ndjson(rows: Rows) -> Answer:
    """One JSON object a line."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return Answer("".join(lines).encode(), headers={"Content-Type": "application/x-ndjson"})


def csv_text(rows: Rows) -> Answer:
    """With a header line (RFC 4180)."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _fields(rows))
    writer.writeheader()
    writer.writerows(rows)
    return Answer(text.getvalue().encode(), headers={"Content-Type": "text/csv; charset=utf-8"})


def csv_rows(rows: Rows) -> Answer:
    """Without a header line."""
    _, _, lines = csv_text(rows).body.partition(b"\r\n")
    return Answer(lines, headers={"Content-Type": "text/csv; charset=utf-8; header=absent"})


def csv_file(rows: Rows) -> Answer:
    """A gzip file: the client has to unpack it."""
    body = gzipped.compress(csv_text(rows).body, mtime=0)
    return Answer(body, headers={"Content-Type": "application/gzip"})


def gzip(rows: Rows) -> Answer:
    """Packed for the way only: the client's HTTP library unpacks it."""
    plain = as_json({"items": rows})
    headers = {**plain.headers, "Content-Encoding": "gzip"}
    return Answer(gzipped.compress(plain.body, mtime=0), headers=headers)


def json_by_id(rows: Rows) -> Answer:
    """An object of the rows, whose names are their ids."""
    others = [{name: value for name, value in row.items() if name != "id"} for row in rows]
    by_id = {str(row["id"]): other for row, other in zip(rows, others, strict=True)}
    return as_json({"items": by_id})


def json_edges(rows: Rows) -> Answer:
    """Each row in an object of its own, as in GraphQL."""
    return as_json({"data": {"items": [{"cursor": "x", "node": row} for row in rows]}})


def json_in_lists(rows: Rows) -> Answer:
    """Ten rows in each element of a list."""
    groups = [rows[start : start + 10] for start in range(0, len(rows), 10)]
    return as_json([{"number": n, "items": group} for n, group in enumerate(groups, start=1)])


def json_rows(rows: Rows) -> Answer:
    """An array of values for each row, after one of the names."""
    names = _fields(rows)
    return as_json([names, *([row.get(name) for name in names] for row in rows)])


def xml(rows: Rows) -> Answer:
    """An element for each row, and one for each of its values."""
    items = "".join(
        f"<item>{''.join(f'<{n}>{escape(str(v))}</{n}>' for n, v in row.items())}</item>"
        for row in rows
    )
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<items count="{len(rows)}">{items}</items>'
    return Answer(text.encode(), headers={"Content-Type": "application/xml"})


def zip_file(rows: Rows) -> Answer:
    """Ten rows in each CSV file, beside a file of another kind."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README", "Items, by ten.")
        for start in range(0, len(rows), 10):
            archive.writestr(f"items-{start:04}.csv", csv_text(rows[start : start + 10]).body)
    return Answer(packed.getvalue(), headers={"Content-Type": "application/zip"})


FORMATS: Mapping[str, Callable[[Rows], Answer]] = {
    "list": json_list,
    "object": json_object,
    "columns": json_columns,
    "ndjson": ndjson,
    "csv": csv_text,
    "csv_rows": csv_rows,
    "csv.gz": csv_file,
    "gzip": gzip,
    "by_id": json_by_id,
    "edges": json_edges,
    "in_lists": json_in_lists,
    "rows": json_rows,
    "xml": xml,
    "zip": zip_file,
}


def _fields(rows: Rows) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))
