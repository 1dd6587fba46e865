"""Promises of secrets: where they are looked for, and that saving them twice does no harm."""

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from blocks import secrets
from deployments.local.processes import free_port
from deployments.local.stack import Stack
from flows import sources
from flows.errors import RefusedLoginError, UnavailableError
from flows.extract.auth import ApiKey, Basic, Bearer, OAuth2
from flows.source import Source

VALUES = [
    "plain",
    "123",
    "null",
    "true",
    '{"a": 1}',
    '"quoted"',
    " spaces ",
    "ü€\U0001f511",
    "****",
]


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources with these logins, and none of their secrets in the environment."""
    logins = {"a": Bearer("first-token"), "b": Basic("me", "second-password"), "c": None}
    logins["d"] = ApiKey("first-token", header="X-Key")
    found = {
        name: Source(name, "https://api.test", (), login=login) for name, login in logins.items()
    }
    monkeypatch.setattr(sources, "names", lambda: list(found))
    monkeypatch.setattr(sources, "find", found.__getitem__)
    for name in ("FIRST_TOKEN", "SECOND_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


def test_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a request to Prefect: a laptop needs no server for it."""
    monkeypatch.setattr(secrets, "Secret", None)
    monkeypatch.setenv("SHOP_TOKEN", "from here")
    assert secrets.read("shop-token") == "from here"


@pytest.mark.usefixtures("stack", "declared")
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_saved_secret_is_read_as_it_was(value: str) -> None:
    assert secrets.save({"FIRST_TOKEN": value, "OTHER": "x"}) == ["first-token"]
    assert secrets.read("first-token") == value


@pytest.mark.usefixtures("stack", "declared")
def test_saving_again_replaces_and_leaves_the_others() -> None:
    both = {"FIRST_TOKEN": "one", "SECOND_PASSWORD": "two"}
    for _ in range(2):
        assert secrets.save(both) == ["first-token", "second-password"]
    assert secrets.save({"FIRST_TOKEN": "three", "SECOND_PASSWORD": ""}) == ["first-token"]
    assert secrets.read("first-token") == "three"
    assert secrets.read("second-password") == "two"


@pytest.mark.usefixtures("stack")
def test_all_secrets_of_several_logins_are_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    oauth2 = OAuth2("https://api.test", "me", "client-secret", refresh_token="refresh-token")
    source = Source("shop", "https://api.test", (), (ApiKey("app-key", header="X-Key"), oauth2))
    monkeypatch.setattr(sources, "names", lambda: ["shop"])
    monkeypatch.setattr(sources, "find", lambda _: source)
    given = {"APP_KEY": "one", "CLIENT_SECRET": "two", "REFRESH_TOKEN": "three"}
    assert secrets.save(given) == ["app-key", "client-secret", "refresh-token"]


def test_an_empty_variable_is_no_secret(
    stack: Stack, declared: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets.save({"FIRST_TOKEN": "kept"})
    monkeypatch.setenv("FIRST_TOKEN", "")
    assert secrets.read("first-token") == "kept"


@pytest.mark.usefixtures("stack")
@pytest.mark.parametrize("name", ["shop_key", "Shop-Key", "shop.key"])
def test_a_secret_may_be_named_as_prefect_names_none(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source("shop", "https://api.test", (), login=Bearer(name))
    monkeypatch.setattr(sources, "names", lambda: ["shop"])
    monkeypatch.setattr(sources, "find", lambda _: source)
    monkeypatch.delenv("SHOP_KEY", raising=False)
    assert secrets.save({"SHOP_KEY": name}) == [name]
    assert secrets.read(name) == name


@pytest.mark.usefixtures("stack")
@pytest.mark.parametrize("name", ["missing-token", "Missing_Token"])
def test_a_missing_secret_is_a_refused_login_that_names_both_remedies(name: str) -> None:
    with pytest.raises(RefusedLoginError) as failure:
        secrets.read(name)
    said = str(failure.value)
    assert f"The secret {name!r} is missing. Set MISSING_TOKEN, or store it in Prefect" in said
    assert "write the variable to .env, which `make run-local` reads" in said


def test_a_prefect_that_does_not_answer_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_TOKEN", raising=False)
    nobody = {PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    with (
        temporary_settings(nobody),
        pytest.raises(UnavailableError, match=r"so the secret 'shop-token' can't be read"),
    ):
        secrets.read("shop-token")
