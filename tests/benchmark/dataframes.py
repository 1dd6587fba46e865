"""pandas: every page a DataFrame, appended by `to_sql` with its default settings. No key."""

from collections.abc import Iterator
from typing import Any

import pandas
import requests
import sqlalchemy

from tests.benchmark.tools import TOOLS, Task

TIMEOUT_SECONDS = 60


def load(task: Task) -> None:
    """Append the pages, each in a transaction of its own."""
    schema, table = TOOLS["to_sql"].table
    engine = sqlalchemy.create_engine(task.database)
    for rows in pages(task.url):
        frame = pandas.DataFrame(rows)
        frame.to_sql(table, engine, schema=schema, if_exists="append", index=False)
    engine.dispose()


def pages(url: str) -> Iterator[list[dict[str, Any]]]:
    """The records, page by page."""
    with requests.Session() as session:
        link: str | None = url
        while link is not None:
            response = session.get(link, timeout=TIMEOUT_SECONDS)
            response.raise_for_status()
            page = response.json()
            yield page["rows"]
            link = page["next_url"]
