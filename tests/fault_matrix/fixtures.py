"""The lab as a test gets it: nobody sleeps, the clock of loads stands still, all has an end."""

import time
from collections.abc import Iterator

import pytest
from sqlalchemy.engine import URL

from flows.extract import client as extracting
from tests.fault_matrix.lab import Lab, Nap, opened, within_budget
from tests.fault_matrix.styles import SECRETS


@pytest.fixture(scope="module")
def open_lab(postgres_server: URL) -> Iterator[Lab]:
    """One API and one database for all tests of a module."""
    with opened(postgres_server) as lab:
        yield lab


@pytest.fixture
def lab(open_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """The module's lab, with a budget of time for this test."""
    open_lab.naps.clear()
    monkeypatch.setattr(
        extracting, "sleep", lambda seconds: open_lab.naps.append(Nap(time.time(), seconds))
    )
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    with within_budget():
        yield open_lab
