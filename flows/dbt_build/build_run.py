"""What one build works with, and what it gets from the flow that runs it."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from flows.dbt_build.dbt_project import DbtProject, ShowNode
from flows.dbt_build.verdict import Summary


class Database(Protocol):
    """The warehouse, as a `blocks.warehouse.Warehouse` gives access to it."""

    def session(self) -> AbstractContextManager[Connection]:
        """A new connection, closed at the end."""

    def transaction(self) -> AbstractContextManager[Cursor]:
        """A cursor on a new connection, committed at the end."""

    def dbt_environment(self) -> dict[str, str]:
        """Environment variables that give dbt the login."""


@dataclass(frozen=True)
class BuildOptions:
    """Parameters of a `transform` run; see the flow for what each means."""

    only_stale: bool
    full_refresh: bool
    check_freshness: bool
    keep_docs: bool
    timeout_seconds: float
    replace: Sequence[str] = ()


@dataclass(frozen=True)
class BuildRun:
    """One run of `build`.

    Attributes:
        resources: the resources of each source; None for a source that can't be imported.
        run_id: the flow run's id; a run that builds everything resumes only its own builds.
        logger: the run's log.
        show_node: called with the data of dbt's event when a node has ended.
        show_summary: called when dbt has ended, before the results are judged.
    """

    database: Database
    project: DbtProject
    resources: Mapping[str, Sequence[str] | None]
    options: BuildOptions
    run_id: str | None
    logger: logging.Logger | logging.LoggerAdapter[Any]
    show_node: ShowNode
    show_summary: Callable[[Summary], None]
