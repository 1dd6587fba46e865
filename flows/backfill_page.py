"""What a backfill in several runs shows in Prefect: its progress, and one page with its chunks."""

from collections import Counter
from collections.abc import Sequence
from time import monotonic
from typing import cast
from uuid import UUID

from httpx import HTTPError
from prefect import get_client, get_run_logger
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.utilities.urls import url_for

from blocks.environment import own
from blocks.warehouse import Warehouse
from flows.backfill_chunks import Chunk
from flows.errors import UnavailableError
from flows.progress import SHOWN_EVERY_SECONDS


class Page:
    """The two artifacts of a backfill, updated in place.

    Attributes:
        wanted: how many windows this attempt has to load.
    """

    def __init__(
        self, database: Warehouse, source: str, chunks: Sequence[Chunk], declared: int
    ) -> None:
        self.wanted = sum(len(chunk.keys) for chunk in chunks)
        self._database = database
        self._source = source
        self._chunks = chunks
        self._declared = declared
        self._counted: set[str] = set()
        self._artifacts: tuple[UUID, UUID] | None = None
        self._shown_at = -SHOWN_EVERY_SECONDS

    def show(self) -> None:
        """Bring the artifacts up to date, unless that was done a few seconds ago."""
        if monotonic() - self._shown_at >= SHOWN_EVERY_SECONDS:
            self.show_now()

    def show_now(self) -> None:
        """Bring the artifacts up to date; while Postgres or Prefect is away, they stay behind."""
        self._shown_at = monotonic()
        try:
            self._count()
            self._update(self._percent(), self.text())
        except (UnavailableError, HTTPError) as error:
            get_run_logger().warning("The progress could not be shown: %s", error)

    def text(self) -> str:
        """The page: a sentence about the whole, and a row for each chunk."""
        states = Counter(map(_state, self._chunks))
        counts = ", ".join(f"{number} {state.lower()}" for state, number in states.items())
        return "\n".join(
            [
                f"**{self._loaded():,} of {self._declared:,} windows of {self._source} are loaded "
                f"({self._percent():.1f} %).**",
                "",
                f"{len(self._chunks)} runs: {counts or 'nothing is missing'}.",
                "",
                "| days | windows | state | run |",
                "|---|---:|---|---|",
                *map(_row, self._chunks),
            ]
        )

    def _loaded(self) -> int:
        before = self._declared - self.wanted
        return before + sum(chunk.loaded for chunk in self._chunks)

    def _percent(self) -> float:
        return 100.0 * self._loaded() / self._declared if self._declared else 100.0

    def _count(self) -> None:
        """Read from the ledger what is loaded; of runs that have ended, once."""
        for chunk in self._chunks:
            if str(chunk) not in self._counted:
                chunk.count(self._database)
            if chunk.state and chunk.state.is_final() and not chunk.state.is_crashed():
                self._counted.add(str(chunk))

    def _update(self, percent: float, text: str) -> None:
        if self._artifacts is None:
            key = own(f"backfill-{self._source.replace('_', '-')}")
            self._artifacts = (
                cast(UUID, create_progress_artifact(percent)),
                cast(UUID, create_markdown_artifact(text, key=key)),
            )
            return
        update_progress_artifact(self._artifacts[0], percent)
        with get_client(sync_client=True) as prefect:
            prefect.update_artifact(self._artifacts[1], ArtifactUpdate(data=text))


def _state(chunk: Chunk) -> str:
    """`Late` is Prefect's word for a run that no worker takes."""
    return chunk.state.name if chunk.state and chunk.state.name else "Waiting"


def _row(chunk: Chunk) -> str:
    run = ""
    if chunk.run:
        url = url_for(chunk.run)
        run = f"[{chunk.run.name}]({url})" if url else chunk.run.name
    counts = f"{chunk.loaded:,} of {len(chunk.keys):,}"
    return f"| {chunk} | {counts} | {_state(chunk)} | {run} |"
