"""docs/your-first-source.md: its file loads what it says, and its command writes and says that."""

import re
from hashlib import sha256
from hmac import digest
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import URL

from commands.new_source import first_load
from commands.new_source.__main__ import make_draft
from tests.commands.new_sources import bare_repository, new_source
from tests.docs.shop_api import TOKEN, Shop
from tests.example_sources.example import Example, Query
from tests.example_sources.loading import moved
from tests.http_servers import Serve
from tests.owner.checkout import REPOSITORY, run

PAGE = (REPOSITORY / "docs" / "your-first-source.md").read_text()
FILE, *_ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SAID, *_ = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
ADDRESSES = re.findall(r'make new-source NAME=shop URL="https://api.example.com/(\S+)"', PAGE)
HASH_KEY = "sample-hash-key"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("SHOP_TOKEN", TOKEN)
    monkeypatch.setenv("SHOP_HASH_KEY", HASH_KEY)
    return Shop()


@pytest.fixture
def shop(api: Shop, serve: Serve, database: URL, query: Query) -> Example:
    """The page's source, at the test's server."""
    defined: dict[str, Any] = {}
    exec(FILE, defined)  # noqa: S102 (our own page)
    server = serve(api)
    return Example("", moved(defined["SOURCE"], server.url), server, database, query)


def assert_exact(shop: Example, api: Shop) -> None:
    """The tables are what the API has, but for personal fields."""
    orders = {order["id"]: order for order in shop.rows("orders")}
    assert len(orders) == len(api.orders) == 12
    for order in api.orders:
        hashed = digest(HASH_KEY.encode(), order["email"].encode(), sha256).hex()
        phone = f"***{order['customer']['phone'][-3:]}"
        assert orders[order["id"]] == {**order, "email": hashed, "customer": {"phone": phone}}
    found = shop.query("select order_id, number, sku, quantity from raw_shop.lines")
    lines = [(key, *line.values()) for key, lines in api.lines.items() for line in lines]
    assert sorted(found) == sorted(lines)
    assert len(lines) > 30


def test_all_is_loaded_and_the_next_runs_request_only_what_changed(
    shop: Example, api: Shop
) -> None:
    """The newest order comes again, since a run starts at midnight. A line changes its order."""
    shop.load()
    assert_exact(shop, api)
    first_requests = len(shop.server.asked)
    assert first_requests > 3 + 12
    assert shop.load_again() == ((0, 0, 0), ["/v2/orders"])
    assert "updated_from=2026-01-12T00%3A00%3A00Z" in shop.server.asked[-1]
    api.add_line("A-7", "2026-02-01T09:00:00Z")
    counts, asked = shop.load_again()
    assert counts == (1, 1, 0)
    assert asked == ["/v2/orders", "/v2/orders/A-7/lines", "/v2/orders/A-7/lines"]
    assert_exact(shop, api)


def test_the_command_says_what_the_page_shows_and_writes_what_it_keeps(
    api: Shop, serve: Serve, tmp_path: Path
) -> None:
    """Each line of the written file is in the page's, but for what the page says to correct."""
    root = bare_repository(tmp_path)
    url = serve(api).url
    orders, lines = ADDRESSES
    draft = make_draft("shop", f"{url}{orders}", "", "", "bearer:shop-token")
    made = new_source(root, f"{url}{orders}", name="shop", login="bearer:shop-token")
    assert made.returncode == 0, made.stdout
    said: list[str] = []
    assert first_load.load(root, [draft], {}, said.append) == 0
    left_open = made.stdout[made.stdout.index("\n  NOT") :].partition("Next:")[0]
    assert f"{said[0].lstrip()}\n{left_open}" == SAID
    made = new_source(root, f"{url}{lines}", name="shop", key="number")
    assert made.returncode == 0, made.stdout
    assert 'make preview SOURCE=shop RESOURCE=lines PARTITION="order_id=…"\n' in made.stdout
    written = (root / "flows" / "sources" / "shop.py").read_text().splitlines()[1:]
    ours = [line.partition("  #")[0] for line in FILE.splitlines()]
    assert [line.strip() for line in written if line not in ours] == [
        "from flows.source import Resource, RowsOf, Source",
        f'base_url="{url}v2/",',
        'partitions=RowsOf("orders", {"order_id": "id"}),',
    ]


def test_a_part_of_the_suite_is_run_as_the_page_says() -> None:
    """And it is there."""
    [(words, folder)] = re.findall(r"make (test TESTS=(\S+))", PAGE)
    options = ("--no-print-directory", "--old-file=install-dev", "--dry-run")
    shown = run(REPOSITORY, "make", *options, *words.split())
    assert shown.rstrip().endswith(f" {folder}")
    assert list((REPOSITORY / folder).glob("test_*.py"))
