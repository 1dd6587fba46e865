"""A person does not wait as long for an API that is down as a load does."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from commands.new_source import documents
from commands.new_source.__main__ import make_draft
from commands.preview import first_page
from commands.waits import MAX_SECONDS
from flows.errors import UnavailableError
from flows.extract.selectors import records_at
from flows.source import Partition, Resource, Source

# Nothing listens at this port: it is reserved for a service that nobody runs.
DOWN = "http://127.0.0.1:9/"
ORDERS = Resource("orders", "orders", records_at(), key=("id",))
SHOP = Source("shop", DOWN, (ORDERS,))
COMMANDS: dict[str, Callable[[], object]] = {
    "a new source": lambda: make_draft("shop", f"{DOWN}v1/orders", "", "", ""),
    "a new resource": lambda: make_draft("shop", f"{DOWN}orders", "", "", "", present=SHOP),
    "a document": lambda: documents.read(f"{DOWN}openapi.json"),
    "a preview": lambda: first_page(SHOP, ORDERS, Partition()),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_an_api_that_is_down_is_reported_soon(
    command: Callable[[], object], slept: list[float]
) -> None:
    with pytest.raises(UnavailableError, match=f"of at most {MAX_SECONDS} s"):
        command()
    assert 0 < sum(slept) <= MAX_SECONDS


def test_a_source_that_waits_less_keeps_its_limit(slept: list[float]) -> None:
    with pytest.raises(UnavailableError, match="of at most 0 s"):
        first_page(replace(SHOP, max_wait_seconds=0), ORDERS, Partition())
    assert not slept
