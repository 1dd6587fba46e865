"""The README's examples work as printed."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from psycopg2.extensions import connection as Connection

from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.load.loader import load
from flows.source import Source
from tests.http_servers import Answer, Server

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text()
PAGES_OF_DOCS = [README, *(path.read_text() for path in (REPOSITORY / "docs").glob("*.md"))]
PAGES = [[1, 2], [3]]


def test_the_example_source_loads_every_page(
    serve: Callable[[Callable[[str], Answer]], Server],
    connection: Connection,
    query: Callable[..., list[tuple[Any, ...]]],
) -> None:
    example: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0], example)  # noqa: S102 (our README)

    def answer(path: str) -> Answer:
        number = 1 if "page=2" in path else 0
        following = "orders?page=2" if number == 0 else None
        records = [{"id": key, "total": 9.5} for key in PAGES[number]]
        return Answer(json.dumps({"data": records, "next": following}).encode())

    source: Source = replace(example["SOURCE"], base_url=serve(answer).url)
    resource = source.resources[0]
    with Client(source) as client:
        entry = load(
            connection,
            source.name,
            resource,
            resource.partitions[0],
            lambda window, resume: read_pages(
                client, source, resource, resource.partitions[0], window, resume
            ),
        )
    assert (entry.pages, entry.inserted) == (2, 3)
    assert query("select id, total from raw_shop.orders order by id") == [
        (1, 9.5),
        (2, 9.5),
        (3, 9.5),
    ]


def test_every_make_target_that_the_docs_name_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^ {4}|`)make ([a-z-]+)", "\n".join(PAGES_OF_DOCS), re.MULTILINE))
    assert {"run-local", "test", "psql"} <= named
    assert named <= targets


def test_every_file_that_the_docs_name_exists() -> None:
    named = {
        name
        for name in re.findall(r"`((?:flows|docs|dbt_project)/[\w./]+)`|\]\(([\w./]+)\)", README)
        for name in name
        if name and "shop" not in name
    }
    assert len(named) >= 3
    assert [name for name in named if not (REPOSITORY / name).exists()] == []


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len(README.splitlines()) <= 120
