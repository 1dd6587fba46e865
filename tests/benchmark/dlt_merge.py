"""dlt: its REST client, its merge by primary key, its default settings."""

from collections.abc import Iterator
from typing import Any

import dlt
from dlt.sources.helpers.rest_client import RESTClient
from dlt.sources.helpers.rest_client.paginators import JSONLinkPaginator
from sqlalchemy.engine import make_url

from tests.benchmark.flights import KEY
from tests.benchmark.tools import TOOLS, Task


def load(task: Task) -> None:
    """Merge the pages by the flights' key."""
    schema, table = TOOLS[task.tool].table
    address = make_url(task.database).set(host="localhost")
    pipeline = dlt.pipeline(
        "flights",
        destination=dlt.destinations.postgres(address.render_as_string(hide_password=False)),
        dataset_name=schema,
        pipelines_dir=task.state,
    )
    rows = dlt.resource(pages, name=table, write_disposition="merge", primary_key=KEY)
    loader_file_format = "csv" if task.tool == "dlt_csv" else None
    pipeline.run(rows(task), loader_file_format=loader_file_format)


def pages(task: Task) -> Iterator[Any]:
    """The records, page by page."""
    client = RESTClient(task.base_url, paginator=JSONLinkPaginator(next_url_path="next_url"))
    yield from client.paginate(task.path, data_selector="rows")
