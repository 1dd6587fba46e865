"""`make new-source` with a body, a user or a client; and for a source that exists."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import rows
from sqlalchemy.engine import URL

from commands.new_source import files
from commands.new_source.__main__ import make_draft
from commands.new_source.draft_files import present_source, write
from deployments.local.postgres import libpq
from flows.errors import ConfigurationError
from flows.source import RowsOf, Source
from tests.commands.new_sources import Serve, bare_repository
from tests.http_servers import Answer

ROWS = Answer(json.dumps({"items": [{"id": 1}, {"id": 2}]}).encode())


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository of the test's own, and a secret."""
    monkeypatch.setenv("SHOP_SECRET", "a-secret-value")
    return bare_repository(tmp_path)


def added(root: Path, url: str, login: str = "", body: str = "", key: str = "") -> Source:
    """Write a resource of the source `shop`; return what its module then declares."""
    present = present_source(root, "shop")
    write([make_draft("shop", url, "", key, login, body, present)], root)
    found = present_source(root, "shop")
    assert found is not None
    return found


def test_a_post_is_declared_with_its_body(serve: Serve, root: Path) -> None:
    server = serve(lambda _: ROWS)
    source = added(root, f"{server.url}v1/search", body='{"state": "open", "ids": [1]}')
    [resource] = source.resources
    assert (resource.method, resource.body) == ("POST", {"state": "open", "ids": [1]})
    assert server.asked[0].method == "POST"
    with pytest.raises(ConfigurationError, match="BODY must be JSON"):
        added(root, f"{server.url}v1/other", body="{")


def test_a_user_is_declared_and_used(serve: Serve, root: Path) -> None:
    server = serve(lambda _: ROWS)
    source = added(root, f"{server.url}v1/orders", "basic:ada:shop-secret")
    assert repr(source.login) == "Basic(user='ada', secret='shop-secret', param='')"
    assert server.asked[0].headers["Authorization"].startswith("Basic ")


def test_a_client_is_declared_and_used(serve: Serve, root: Path) -> None:
    token = Answer(b'{"access_token": "of-the-client", "expires_in": 60}')
    server = serve(lambda path: token if path.startswith("/token") else ROWS)
    login = f"oauth2:me:shop-secret:{server.url}token"
    source = added(root, f"{server.url}v1/orders", login)
    assert f"OAuth2(token_url='{server.url}token', client_id='me'" in repr(source.login)
    assert server.asked[-1].headers["Authorization"] == "Bearer of-the-client"


@pytest.mark.parametrize(
    ("line", "name"), [({"id": 1}, "order_id"), ({"id": 1, "order_id": 17}, "parent_order_id")]
)
def test_the_children_of_one_row_are_requested_for_all(
    serve: Serve, root: Path, line: dict[str, int], name: str
) -> None:
    """Line 1 of one order is not line 1 of the next: the order is part of the key."""
    lines = Answer(json.dumps([line, {**line, "id": 2}]).encode())
    server = serve(lambda path: lines if path.endswith("lines") else ROWS)
    added(root, f"{server.url}v1/orders", key="id")
    source = added(root, f"{server.url}v1/orders/17/lines", key="id")
    children = source.resource("lines")
    assert children.path == f"orders/{{{name}}}/lines"
    assert children.partitions == RowsOf("orders", {name: "id"})
    assert (children.key, children.partition_columns) == ((name, "id"), (name,))
    assert added(root, f"{server.url}v1/orders/open").resource("open").path == "orders/open"


def test_a_refresh_token_is_declared_used_and_its_next_one_stored(
    serve: Serve, root: Path, monkeypatch: pytest.MonkeyPatch, database: URL
) -> None:
    token = b'{"access_token": "of-the-user", "refresh_token": "next", "expires_in": 60}'
    server = serve(lambda path: Answer(token) if path.startswith("/token") else ROWS)
    login = f"refresh:me:shop-secret:shop-refresh:{server.url}token"
    monkeypatch.setenv("SHOP_REFRESH", "first")
    monkeypatch.delenv("WAREHOUSE_URL", raising=False)
    with pytest.raises(ConfigurationError, match="set WAREHOUSE_URL"):
        added(root, f"{server.url}v1/orders", login)
    assert server.asked == []
    monkeypatch.setenv("WAREHOUSE_URL", libpq(database))
    source = added(root, f"{server.url}v1/orders", login)
    assert source.secret_names == ("shop-secret", "shop-refresh")
    assert server.asked[-1].headers["Authorization"] == "Bearer of-the-user"
    assert rows(database, "select count(*) from elt.refresh_tokens") == [(1,)]


@pytest.mark.parametrize(
    "login",
    ["refresh:me:x:http://a.test/t", "basic:ada", "basic::x", "oauth2:me:x:token", "oauth2:me:x"],
)
def test_another_form_of_a_login_is_refused(root: Path, login: str) -> None:
    with pytest.raises(ConfigurationError, match="must be bearer:SECRET"):
        added(root, "http://127.0.0.1:9/v1/orders", login)


def test_a_resource_is_added_with_the_login_of_the_source(serve: Serve, root: Path) -> None:
    server = serve(lambda _: ROWS)
    first = added(root, f"{server.url}v1/orders", "bearer:shop-secret", key="id")
    module = root / "flows" / "sources" / "shop.py"
    module.write_text(f"{module.read_text()}\n\n# the owner's\n")
    both = added(root, f"{server.url}v1/archive/lines?a=b", key="id")
    assert both.resources[:1] == first.resources
    assert (both.resources[1].path, both.resources[1].params) == ("archive/lines", {"a": "b"})
    assert server.asked[-1].headers["Authorization"] == "Bearer a-secret-value"
    assert module.read_text().endswith("\n\n# the owner's\n")


def test_what_does_not_fit_to_the_source_is_refused(serve: Serve, root: Path) -> None:
    server = serve(lambda _: ROWS)
    added(root, f"{server.url}v1/orders")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    refused = {
        "is not where URL": (f"{server.url}v2/lines", ""),
        "has another login": (f"{server.url}v1/lines", "bearer:shop-secret"),
        "orders": (f"{server.url}v1/orders", ""),
    }
    for said, (url, login) in refused.items():
        with pytest.raises(ConfigurationError, match=said):
            added(root, url, login)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def contents(root: Path) -> dict[str, bytes]:
    """All files, by their paths."""
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def killed_at(step: int, write_it: Callable[[], object]) -> None:
    """Run until the step-th file is moved, as a process that gets no further."""
    steps = iter(range(step))
    rename = Path.rename

    def next_step(path: Path, target: Path) -> Path:
        if next(steps, None) is None:
            raise SystemExit
        return rename(path, target)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(Path, "rename", next_step)
        patched.setattr(files, "_undo", lambda _: None)
        write_it()


@pytest.mark.parametrize("step", range(6))
def test_a_killed_addition_is_taken_back_by_the_next_run(
    serve: Serve, root: Path, step: int
) -> None:
    server = serve(lambda _: ROWS)
    added(root, f"{server.url}v1/orders", key="id")
    before = contents(root)
    killed_at(step, lambda: added(root, f"{server.url}v1/lines", key="id"))
    files.write(root, [])
    assert contents(root) == before


def test_what_an_owner_edits_after_a_kill_stays(serve: Serve, root: Path) -> None:
    server = serve(lambda _: ROWS)
    added(root, f"{server.url}v1/orders", key="id")
    killed_at(5, lambda: added(root, f"{server.url}v1/lines", key="id"))
    module = root / "flows" / "sources" / "shop.py"
    assert '"lines"' in module.read_text()
    module.write_text(f"{module.read_text()}# mine\n")
    files.write(root, [])
    assert module.read_text().endswith("# mine\n")
