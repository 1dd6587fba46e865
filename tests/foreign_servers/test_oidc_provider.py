"""Promises of refresh tokens, kept with oidc-provider, which is certified for OpenID Connect.

It replaces a refresh token at each exchange. If it sees one again, it takes that for a theft and
revokes all tokens that descend from the same authorization (RFC 9700, 4.14.2).
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import requests
from conftest import rows
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.errors import RefusedLoginError
from flows.extract.auth import OAuth2
from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.extract.selectors import record_at
from flows.load.loader import load
from flows.refresh_tokens import RefreshTokens
from flows.source import Partition, Resource, Source
from tests.foreign_servers import services

CLIENT = ("shop", "sample-client-secret")
OWNER = Resource("owner", "me", record_at(), key=("sub",))


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    return tmp_path / "first_refresh_token"


@pytest.fixture
def provider(tmp_path: Path, token_file: Path) -> Iterator[str]:
    with services.oidc_provider(tmp_path, token_file) as url:
        yield url


@pytest.fixture
def run(
    database: URL, connection: Connection, provider: str, token_file: Path
) -> Callable[[], None]:
    """Load who the owner is, as a run of its own would."""
    secrets = {"shop-secret": CLIENT[1], "shop-refresh-token": token_file.read_text()}
    login = OAuth2(f"{provider}token", CLIENT[0], "shop-secret", refresh_token="shop-refresh-token")
    source = Source("shop", provider, (OWNER,), login)
    tokens = RefreshTokens(partial(psycopg2.connect, libpq(database)))

    def start() -> None:
        with Client(source, secrets.__getitem__, share_token=tokens) as client:
            pages = partial(read_pages, client, source, OWNER, Partition())
            load(connection, source.name, OWNER, Partition(), pages)

    return start


def renewals(database: URL) -> int:
    [(count,)] = rows(database, "select renewals from elt.refresh_tokens")
    return int(count)


def end_access_token(database: URL) -> None:
    rows(database, "update elt.refresh_tokens set usable_until = now()")


def test_each_run_logs_in_with_the_newest_token(
    database: URL, run: Callable[[], None], query: Callable[..., Any]
) -> None:
    for exchanges in (1, 1, 2, 3):
        if exchanges > 1:
            end_access_token(database)
        run()
        assert renewals(database) == exchanges
    assert query("select sub from raw_shop.owner") == [("owner",)]


def test_a_token_that_somebody_else_used_is_named_with_the_remedy(
    database: URL, run: Callable[[], None], provider: str, token_file: Path
) -> None:
    run()
    form = {"grant_type": "refresh_token", "refresh_token": token_file.read_text()}
    used = requests.post(f"{provider}token", auth=CLIENT, data=form, timeout=10)
    assert used.json()["error"] == "invalid_grant"
    with pytest.raises(RefusedLoginError, match="authorize the client again and store the new"):
        run()
    assert renewals(database) == 1
