"""A page in a real browser, for tests; Chromium or Chrome must be there, nothing is downloaded."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
FLAGS = [
    "--no-sandbox",  # root needs it
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]
SECONDS = 120

needs_browser = pytest.mark.skipif(
    BROWSER is None, reason=f"none of {', '.join(BROWSERS)} is there"
)


@contextmanager
def opened(url: str, profile: Path, width: int = 1200, height: int = 1400) -> Iterator[Page]:
    """A page in a browser with a profile of its own.

    Prefect's own client can't be used meanwhile: it would find this thread's event loop running.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=BROWSER,
            args=FLAGS,
            viewport={"width": width, "height": height},
        )
        try:
            page = browser.pages[0]
            page.set_default_timeout(SECONDS * 1000)
            expect.set_options(timeout=SECONDS * 1000)
            page.goto(url)
            yield page
        finally:
            browser.close()
