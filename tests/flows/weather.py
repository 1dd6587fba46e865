"""The weather behind a proxy, for tests that let the API answer otherwise."""

from collections.abc import Callable

import pytest
import requests

from deployments.local.stack import Stack
from tests.http_servers import Answer, Asked, Serve


@pytest.fixture
def weather(
    stack: Stack, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Callable[[], Answer | None]]:
    """The weather behind a proxy; handlers put in here by first day take precedence."""
    base = stack.environment["CLIMATE_BASE_URL"]
    first: dict[str, Callable[[], Answer | None]] = {}

    def answer(path: Asked) -> Answer:
        for day, say in first.items():
            if f"start_date={day}" in path and (said := say()):
                return said
        return Answer(requests.get(base + path.lstrip("/"), timeout=10).content)

    monkeypatch.setenv("CLIMATE_BASE_URL", serve(answer).url)
    return first
