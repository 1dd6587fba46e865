"""Promises of docs/examples/stripe.py: objects, events and all lines of invoices arrive exactly."""

from collections.abc import Callable

import pytest

from flows.errors import RefusedLoginError
from tests.chaos.victim import Death
from tests.example_sources.example import Example, by_id, once
from tests.example_sources.stripe_api import KEY, Stripe, limited
from tests.http_servers import Asked

pytest_plugins = ["tests.example_sources.fixtures"]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Stripe:
    monkeypatch.setenv("STRIPE_KEY", KEY)
    return Stripe()


@pytest.fixture
def stripe(example: Callable[..., Example], api: Stripe) -> Example:
    return example("stripe", api)


def assert_exact(stripe: Example, api: Stripe) -> None:
    """The tables are what the API has; invoices with their whole customer."""
    for name, rows in api.lists.items():
        assert stripe.rows(name) == by_id([api.shown(name, row, expanded=True) for row in rows])
    lines = [
        {**line, "invoice_id": invoice} for invoice, rows in api.lines.items() for line in rows
    ]
    assert stripe.rows("invoice_lines") == by_id(lines)


def test_all_arrives_and_later_only_what_is_new_or_changed(stripe: Example, api: Stripe) -> None:
    """An invoice that changed is read again; only its lines, and those of the new one, are read."""
    stripe.load()
    assert_exact(stripe, api)
    before = len(stripe.server.asked)
    api.pay(3)
    api.add_customer(24)
    api.add_invoice(24, lines=12)
    stripe.load()
    assert_exact(stripe, api)
    lines = {asked.split("/")[3] for asked in stripe.server.asked[before:] if "/lines" in asked}
    assert lines == {"in_3", "in_24"}
    since = [asked for asked in stripe.server.asked[before:] if asked.startswith("/v1/events")]
    assert "created%5Bgte%5D=17" in since[0]
    assert len(since) < 4


def test_a_limit_without_a_time_is_waited_for(
    stripe: Example, api: Stripe, slept: list[float]
) -> None:
    def is_second_page(asked: Asked) -> bool:
        return "starting_after" in asked

    api.before = once(is_second_page, limited(), limited())
    stripe.load()
    assert_exact(stripe, api)
    assert len(slept) == 2


def test_a_refused_key_is_named_and_nothing_is_stored(
    stripe: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRIPE_KEY", "rk_live_of_yesterday")
    with pytest.raises(RefusedLoginError, match="Invalid API Key") as raised:
        stripe.load()
    assert "yesterday" not in str(raised.value)
    assert stripe.query("select to_regclass('raw_stripe.customers')") == [(None,)]


@pytest.mark.parametrize(
    "death",
    [
        Death("after", "commit", 6, in_lockstep=True),
        pytest.param(Death("before", "page", 16), marks=pytest.mark.long),
    ],
    ids=str,
)
def test_a_load_that_is_killed_goes_on_to_the_same_tables(
    stripe: Example, api: Stripe, death: Death
) -> None:
    """A customer that is new meanwhile stands before the page where the load goes on."""
    stripe.die(death)
    api.add_customer(25)
    stripe.load()
    stripe.load()
    assert_exact(stripe, api)
