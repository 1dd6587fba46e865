"""Prefect's UI in a real browser, as a person uses it: fill in a run's form, watch the run."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urljoin

import pytest
from playwright.sync_api import Page, expect

from deployments.local.message_sink import receiving
from deployments.local.processes import child
from deployments.local.stack import Stack
from flows import sources
from tests.browser import needs_browser, opened
from tests.deployments.command_line import run_module

pytestmark = needs_browser


@pytest.fixture(scope="module")
def ui(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The UI's address, after `make deploy`, with a worker at work."""
    log = tmp_path_factory.mktemp("browser") / "worker.log"
    worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "elt"]
    settings = {**stack.environment, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    with receiving(lambda message: None) as channels:
        run_module(stack, "deployments.deploy", environment=channels)
        with child(worker, log, settings):
            yield urljoin(stack.environment["PREFECT_API_URL"], "/")


def open_form(page: Page) -> None:
    """From the first page to the form of a run, as one clicks there.

    The first page lingers after the first click, and has links to runs of the same name.
    """
    page.get_by_role("link", name="Deployments").click()
    page.wait_for_url("**/deployments*")
    deployments = page.locator("a[href*='/deployments/deployment/']")
    deployments.filter(has_text="market").first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Custom run").click()
    expect(page.get_by_role("heading", name="Parameters")).to_be_visible()


def choices(page: Page, label: str) -> list[str]:
    """The options of a drop-down, which stays open."""
    page.get_by_role("button", name=label).click()
    options = page.get_by_role("option")
    expect(options.first).to_be_visible()
    return options.all_inner_texts()


def keep(page: Page, name: str) -> None:
    """A screenshot for the docs, in the folder that SCREENSHOTS names, if it is set."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.mark.long
def test_a_person_fills_in_the_form_and_watches_the_run(
    ui: str, ask: Callable[..., list[tuple]], tmp_path: Path
) -> None:
    with opened(ui, tmp_path / "profile") as page:
        open_form(page)
        assert choices(page, "Select source") == [*sources.names()]
        page.keyboard.press("Escape")
        assert choices(page, "Select resources") == [*sources.resource_names()]
        page.keyboard.press("Escape")
        page.get_by_role("tab", name="date").first.click()
        page.get_by_role("button", name="Pick a date").click()
        page.get_by_label("Date (yyyy-MM-dd)").fill("1996-07-01")
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")
        for name in ("full_refresh", "replay", "wait"):
            expect(page.get_by_role("switch", name=name)).not_to_be_checked()
        expect(page.get_by_role("switch", name="transform")).to_be_checked()
        expect(page.get_by_label("Retries")).to_have_value("3")
        expect(page.get_by_text("First day to load (UTC, or")).to_be_visible()
        keep(page, "run-form")
        page.get_by_role("button", name="Submit").click()
        page.get_by_role("button", name="View run").click()
        page.wait_for_url("**/runs/flow-run/**")
        page.reload()  # the previous page still shows how the last run ended
        expect(page.get_by_text("Completed", exact=True).first).to_be_visible()
        page.set_viewport_size({"width": 1200, "height": 560})
        page.reload()
        expect(page.locator("canvas").first).to_be_visible()
        keep(page, "run")
        page.get_by_role("tab", name="Artifacts").click()
        expect(page.get_by_text("loads-market").first).to_be_visible()
    assert ask("select count(*), min(order_date) from raw_market.orders") == [
        (830, "1996-07-04T00:00:00Z")
    ]
    assert ask("select count(*) from marts.fct_order_lines") == [(2182,)]


@pytest.mark.long
def test_a_wrong_value_is_refused_before_anything_is_fetched(
    ui: str, ask: Callable[..., list[tuple]], tmp_path: Path
) -> None:
    with opened(ui, tmp_path / "profile") as page:
        open_form(page)
        page.get_by_label("Retries").fill("99")
        page.get_by_role("button", name="Submit").click()
        said = page.get_by_label("Retries").evaluate("field => field.validationMessage")
        assert said == "Value must be less than or equal to 10."
        expect(page.get_by_role("button", name="View run")).to_have_count(0)
    assert ask("select to_regclass('elt.loads')") == [(None,)]
