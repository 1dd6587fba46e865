"""A process that logs in with a refresh token and sends one request; it may die on the way.

Its argument is an `Order` as JSON. It prints nothing: what it did is in the provider and the
warehouse.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import psycopg2

from flows import refresh_tokens
from flows.extract.auth import OAuth2
from flows.extract.client import Client
from flows.refresh_tokens import RefreshTokens
from flows.source import Source


@dataclass(frozen=True)
class Order:
    """What to do.

    Attributes:
        dies: before or after the new tokens are stored; empty to live.
    """

    dsn: str
    url: str
    first: str
    dies: str = ""

    def __str__(self) -> str:
        """The program's argument."""
        return json.dumps(asdict(self))


def source(url: str, **changes: Any) -> Source:
    """An API with its provider at one address."""
    login = OAuth2(f"{url}token", "shop", "shop-secret", refresh_token="shop-refresh-token")
    return Source("shop", url, (), **{"login": login, **changes})


def client(dsn: str, shop: Source, first: str) -> Client:
    """A client as a load has it."""
    secrets = {"shop-secret": "cAn4ryC13nt", "shop-refresh-token": first}
    return Client(
        shop, secrets.__getitem__, share_token=RefreshTokens(partial(psycopg2.connect, dsn))
    )


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _dying(moment: str, store: Callable[..., Any]) -> Callable[..., Any]:
    def step(*arguments: Any) -> Any:
        if moment == "before":
            _die()
        stored = store(*arguments)
        _die()
        return stored

    return step


def main(argument: str) -> None:
    order = Order(**json.loads(argument))
    if order.dies:
        refresh_tokens._store = _dying(order.dies, refresh_tokens._store)  # type: ignore[assignment]
    with client(order.dsn, source(order.url), order.first) as opened:
        opened.get(order.url)


if __name__ == "__main__":
    main(sys.argv[1])
