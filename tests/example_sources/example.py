"""An example beside its API: loaded, loaded again, killed, and its tables."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.load.ledger import Entry
from flows.source import Source
from tests.chaos.processes import was_killed
from tests.chaos.victim import Death
from tests.example_sources.loading import load_all, order
from tests.foreign_servers.loading import changed, stored
from tests.http_servers import Answer, Asked, Server

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 60
Query = Callable[..., list[tuple[Any, ...]]]


@dataclass(frozen=True)
class Example:
    """A source of docs/examples, and the server that it loads from."""

    module: str
    source: Source
    server: Server
    database: URL
    query: Query

    @property
    def connect(self) -> Callable[[], Connection]:
        return partial(psycopg2.connect, libpq(self.database))

    def load(self) -> list[Entry]:
        """Load all resources; each load accounts for every record."""
        entries = load_all(self.connect, self.source)
        for entry in entries:
            assert entry.state == "succeeded"
            stored_rows = entry.inserted + entry.updated + entry.unchanged + entry.rejected
            assert entry.extracted == stored_rows
        return entries

    def load_again(self) -> tuple[tuple[int, int, int], list[str]]:
        """The rows that were inserted, updated and deleted, and the paths that were requested."""
        before = len(self.server.asked)
        counts = changed(self.load())
        return counts, [asked.partition("?")[0] for asked in self.server.asked[before:]]

    def die(self, death: Death) -> None:
        """Load in a process that dies."""
        command = order(self.module, libpq(self.database), self.server.url, death)
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
        assert was_killed(process, self.database, DEADLINE_SECONDS), "it took fewer steps"

    def rows(self, name: str, *left_out: str) -> list[dict[str, Any]]:
        """A raw table, by id, without some columns."""
        found = stored(self.query, self.source, name)
        return [{k: v for k, v in row.items() if k not in left_out} for row in found]


def by_id(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(records, key=lambda record: record["id"])


def once(when: Callable[[Asked], bool], *said: Answer) -> Callable[[Asked], Answer | None]:
    """Say this, one after the other, in the place of answers to such requests."""
    left = list(said)
    return lambda asked: left.pop(0) if left and when(asked) else None
