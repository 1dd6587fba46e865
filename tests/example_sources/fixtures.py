"""An example at the server that a test describes."""

from collections.abc import Callable
from importlib import import_module

import pytest
from sqlalchemy.engine import URL

from tests.example_sources.example import Example, Query
from tests.example_sources.loading import moved
from tests.http_servers import Answer, Asked, Serve


@pytest.fixture
def example(serve: Serve, database: URL, query: Query) -> Callable[..., Example]:
    """The example of that module, at a server that answers as a function does."""

    def at(name: str, answer: Callable[[Asked], Answer]) -> Example:
        module = f"docs.examples.{name}"
        server = serve(answer)
        source = moved(import_module(module).SOURCE, server.url)
        return Example(module, source, server, database, query)

    return at
