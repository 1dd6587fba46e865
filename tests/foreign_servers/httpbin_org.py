"""httpbin, whose path selects its response (https://httpbin.org); it echoes the request."""

from flows.extract.selectors import ndjson, record_at, records_at
from flows.page import Page
from flows.source import Record, Resource, Source


def size(page: Page) -> list[Record]:
    """One record about a body that has no records in it."""
    return [{"path": page.url.split("?")[0], "size_bytes": len(page.body)}]


def echo(name: str, path: str) -> Resource:
    """A response about its own request, as one record, by its address."""
    return Resource(name, path, record_at(), key=("url",))


SOURCE = Source(
    name="httpbin_org",
    base_url="https://httpbin.org/",
    resources=(
        Resource("slides", "json", records_at("slideshow.slides"), key=("title",)),
        Resource("lines", "stream/25", ndjson(), key=("id",)),
        Resource("gzipped", "gzip", record_at(), key=("origin",)),
        Resource("deflated", "deflate", record_at(), key=("origin",)),
        echo("redirected", "redirect/3"),
        echo("redirected_by_full_address", "absolute-redirect/2"),
        echo("delayed", "delay/0.3"),
        Resource(
            name="posted",
            path="anything/orders",
            method="POST",
            headers={"X-Shop": "north"},
            body={"query": "{orders}", "first": 2, "names": ["Ä", None]},
            records=record_at(),
            key=("url",),
        ),
        Resource(
            name="dripped",
            path="drip",
            params={"numbytes": "6", "duration": "0.3", "delay": "0"},
            records=size,
            key=("path",),
        ),
    ),
)
