"""Promises of docs/examples/zendesk.py: exports go on where the last one ended, with comments."""

from collections.abc import Callable

import pytest

from flows.errors import RefusedLoginError
from tests.chaos.victim import Death
from tests.example_sources.example import Example, by_id, once
from tests.example_sources.zendesk_api import TOKEN, Zendesk, limited

EXPORTS = ["/api/v2/incremental/tickets/cursor.json", "/api/v2/incremental/users/cursor.json"]

pytest_plugins = ["tests.example_sources.fixtures"]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Zendesk:
    monkeypatch.setenv("ZENDESK_TOKEN", TOKEN)
    return Zendesk()


@pytest.fixture
def zendesk(example: Callable[..., Example], api: Zendesk) -> Example:
    return example("zendesk", api)


def assert_exact(zendesk: Example, api: Zendesk) -> None:
    """The tables are what the API has."""
    for name, objects in api.objects.items():
        assert zendesk.rows(name) == by_id([*objects.values()])
    comments = [
        {**comment, "ticket_id": ticket}
        for ticket, rows in api.comments.items()
        for comment in rows
    ]
    assert zendesk.rows("comments") == by_id(comments)


def test_all_arrives_and_later_only_what_changed(zendesk: Example, api: Zendesk) -> None:
    zendesk.load()
    assert_exact(zendesk, api)
    counts, asked = zendesk.load_again()
    assert (counts, sorted(asked)) == ((0, 0, 0), EXPORTS)
    api.comment(9)
    api.change("users", 4, active=False)
    counts, asked = zendesk.load_again()
    assert (counts[:2], asked[:2]) == ((1, 2), EXPORTS)
    assert {*asked[2:]} == {"/api/v2/tickets/9/comments.json"}
    assert_exact(zendesk, api)


def test_a_deleted_ticket_keeps_its_comments_and_is_not_asked_for_them(
    zendesk: Example, api: Zendesk
) -> None:
    """One of them was deleted after the export."""
    zendesk.load()
    api.change("tickets", 3, status="deleted")
    api.change("tickets", 4, status="solved")
    api.erased |= {3, 4}
    _, asked = zendesk.load_again()
    assert asked == [*EXPORTS, "/api/v2/tickets/4/comments.json"]
    assert_exact(zendesk, api)


def test_the_limit_of_exports_is_waited_for(
    zendesk: Example, api: Zendesk, slept: list[float]
) -> None:
    api.before = once(lambda asked: "cursor=" in asked, limited(53))
    zendesk.load()
    assert_exact(zendesk, api)
    assert slept[0] == 53


def test_a_refused_token_is_named_and_nothing_is_stored(
    zendesk: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZENDESK_TOKEN", "token-of-yesterday")
    with pytest.raises(RefusedLoginError, match="authenticate you") as raised:
        zendesk.load()
    assert "yesterday" not in str(raised.value)
    assert zendesk.query("select to_regclass('raw_zendesk.tickets')") == [(None,)]


@pytest.mark.parametrize(
    "death",
    [
        Death("after", "commit", 5, in_lockstep=True),
        pytest.param(Death("before", "page", 12), marks=pytest.mark.long),
    ],
    ids=str,
)
def test_a_load_that_is_killed_goes_on_to_the_same_tables(
    zendesk: Example, api: Zendesk, death: Death
) -> None:
    zendesk.die(death)
    zendesk.load()
    assert_exact(zendesk, api)
