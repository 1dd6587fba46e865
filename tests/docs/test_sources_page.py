"""Every example in docs/sources.md loads what it says, as it stands there."""

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.extract import auth, paginators, selectors
from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.load.loader import load
from flows.load.partitions import partitions_of
from flows.refresh_tokens import RefreshTokens
from flows.source import Resource, Source
from tests import certificates
from tests.fault_api.catalogue.logins import service_account_key
from tests.fault_api.server import misbehaving

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sources.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SECRETS = {
    "SHOP_KEY": "sample-api-key",
    "SHOP_TOKEN": "sample-bearer-token",
    "SHOP_EU_TOKEN": "sample-bearer-token",
    "SHOP_US_TOKEN": "sample-bearer-token",
    "SHOP_PASSWORD": "sample-password",
    "SHOP_CLIENT_SECRET": "sample-client-secret",
    "SHOP_REFRESH_TOKEN": "sample-refresh-token",
    "SHOP_APP_KEY": "sample-password",
    "SHOP_HASH_KEY": "sample-hash-key",
}
ALL_ITEMS = 25
OTHERS = {
    "by_size": 2 * (25 + 17),
    "flattened": 2 * 25,
    "parents": 5,
    "single": 1,
    "mapped": 17,
    "chosen_children": 15,
}


def examples() -> dict[str, Any]:
    """All that the page's code defines, block after block."""
    defined: dict[str, Any] = {}
    for block in BLOCKS:
        exec(block, defined)  # noqa: S102 (our own page)
    return defined


DEFINED = examples()
RESOURCES = [value for value in DEFINED.values() if isinstance(value, Resource)]
SOURCES = {name: value for name, value in DEFINED.items() if isinstance(value, Source)}


@pytest.fixture
def api() -> Iterator[str]:
    with misbehaving() as url:
        yield f"{url}/"


def loaded(database: URL, source: Source, resource: Resource) -> int:
    """Load all partitions of a resource and count the rows of its raw table."""
    connect = partial(psycopg2.connect, libpq(database))
    tokens = RefreshTokens(connect)
    with Client(source, share_token=tokens) as client, closing(connect()) as connection:
        for partition in partitions_of(connection, source.name, resource):
            pages = partial(read_pages, client, source, resource, partition)
            load(connection, source.name, resource, partition, pages)
        with connection.cursor() as cursor:
            cursor.execute(f"select count(*) from raw_{source.name}.{resource.name}")  # noqa: S608
            return int(cursor.fetchall()[0][0])


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.name)
def test_a_resource_of_the_page_reads_every_row(
    database: URL, api: str, resource: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    for protection in resource.personal.values():
        if protection.secret:
            name = auth.variable(protection.secret)
            monkeypatch.setenv(name, SECRETS[name])
    source = Source("shop", api, tuple(RESOURCES))
    if resource.name.endswith("children"):
        loaded(database, source, source.resource("parents"))
    for _ in range(2):
        assert loaded(database, source, resource) == OTHERS.get(resource.name, ALL_ITEMS)


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_of_the_page_logs_in(
    database: URL, api: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = service_account_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    certificate = certificates.self_signed("shop")
    made = {"SHOP_SERVICE_ACCOUNT": key.decode(), "SHOP_CERTIFICATE": certificate.decode()}
    for variable, value in {**SECRETS, **made}.items():
        monkeypatch.setenv(variable, value)
    source = SOURCES[name]
    moved = replace(
        source,
        base_url=source.base_url.replace(DEFINED["API"], api),
        login=source.accounts or tuple(_moved(login, api) for login in source.logins),
    )
    accounts = len(source.accounts.by_account) if source.accounts else 1
    assert loaded(database, moved, moved.resources[0]) == ALL_ITEMS * accounts


def _moved(login: Any, api: str) -> Any:
    """The login with its addresses at the tests' API."""
    urls = {
        name: value.replace(DEFINED["API"], api)
        for name, value in vars(login).items()
        if name.endswith("_url")
    }
    return replace(login, **urls)


def test_the_table_at_the_top_leads_to_every_section() -> None:
    table = PAGE.partition("## Find it here")[2].partition("\n## ")[0]
    headings = re.findall(r"^##+ (.+)$", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL), re.M)
    anchors = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
    others = {"find-it-here", "the-commands", "preview-and-load", "names-and-checks"}
    assert len(anchors) > 20
    assert anchors - others - {"promises-and-their-proofs"} == set(
        re.findall(r"\(#([\w-]+)\)", table)
    )


def test_the_page_has_an_example_of_every_style_login_and_body() -> None:
    """As flows/extract offers them: a new one needs an example."""
    for module in (paginators, selectors):
        offered = {
            name
            for name, value in vars(module).items()
            if name in module.__all__ and callable(value) and name != "with_param"
        }
        assert len(offered) >= 5
        assert [name for name in offered if f"{name}(" not in PAGE] == []
    logins = {type(login) for source in SOURCES.values() for login in source.logins}
    offered_logins = {
        value
        for value in vars(auth).values()
        if isinstance(value, type) and is_dataclass(value) and hasattr(value, "sign")
    }
    assert auth.OAuth2 in logins
    assert logins == offered_logins
