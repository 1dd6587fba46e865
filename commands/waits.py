"""How long the commands wait for an API: a person looks on, so not as long as a load."""

from dataclasses import replace

from flows.source import Source

MAX_SECONDS = 20


def shortened(source: Source) -> Source:
    """The source, with an error soon if its API is down or busy."""
    return replace(source, max_wait_seconds=min(source.max_wait_seconds, MAX_SECONDS))
