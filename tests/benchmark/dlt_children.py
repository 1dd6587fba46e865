"""dlt: its rest_api source, parents and their children, the children side by side."""

import dlt
from dlt.sources.rest_api import rest_api_resources
from sqlalchemy.engine import make_url

from tests.benchmark.tools import CONCURRENCY, Task


def load(task: Task) -> None:
    """Merge the parents and the lines of each."""
    dlt.config["extract.workers"] = CONCURRENCY
    address = make_url(task.database).set(host="localhost")
    pipeline = dlt.pipeline(
        "family",
        destination=dlt.destinations.postgres(address.render_as_string(hide_password=False)),
        dataset_name="family",
        pipelines_dir=task.state,
    )
    pipeline.run(
        rest_api_resources(
            {
                "client": {
                    "base_url": f"{task.base_url}{task.path}",
                    "paginator": {"type": "json_link", "next_url_path": "next_url"},
                },
                "resource_defaults": {
                    "write_disposition": "merge",
                    "endpoint": {"data_selector": "rows"},
                },
                "resources": [
                    {"name": "parents", "primary_key": "id", "endpoint": {"path": "parents/1"}},
                    {
                        "name": "lines",
                        "primary_key": ["_parents_id", "line"],
                        "parallelized": True,
                        "include_from_parent": ["id"],
                        "endpoint": {
                            "path": "parents/{resources.parents.id}/lines",
                            "paginator": "single_page",
                        },
                    },
                ],
            }
        )
    )
