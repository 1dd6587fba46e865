"""Prefect's own REST API: flows, and finished runs (https://docs.prefect.io/v3/api-ref/rest-api).

Its requests are POSTs with paging in the JSON body: an offset (`…/filter`) or a page number
(`…/paginate`). They change nothing, so they may be retried.
"""

from datetime import timedelta
from typing import Any

from flows.extract.paginators import offset, page_number
from flows.extract.selectors import records_at
from flows.source import Cursor, Partition, Resource, Source, Window

BY_NAME = {"limit": 10, "sort": "NAME_ASC"}
BY_ID = {"limit": 10, "sort": "ID_DESC"}


def due(_: Partition, window: Window) -> dict[str, Any]:
    """Runs that were due in the window and are over; `after_` includes its edge."""
    filters: dict[str, Any] = {"end_time": {"is_null_": False}}
    if window.since:
        filters["expected_start_time"] = {"after_": window.since.isoformat()}
    return {**BY_ID, "flow_runs": filters}


SOURCE = Source(
    name="prefect_api",
    base_url="http://127.0.0.1:4200/api/",
    resources=(
        Resource(
            name="flows",
            path="flows/filter",
            method="POST",
            is_repeatable=True,
            body=BY_NAME,
            records=records_at(),
            paging=offset(body_field="offset"),
            key=("id",),
        ),
        Resource(
            name="numbered_flows",
            path="flows/paginate",
            method="POST",
            is_repeatable=True,
            body=BY_NAME,
            records=records_at("results"),
            paging=page_number(body_field="page", total_pages="pages"),
            key=("id",),
        ),
        Resource(
            name="flow_runs",
            path="flow_runs/filter",
            method="POST",
            is_repeatable=True,
            body=due,
            records=records_at(),
            paging=offset(body_field="offset"),
            key=("id",),
            cursor=Cursor("expected_start_time", lookback=timedelta(days=1)),
        ),
    ),
)
