"""What a section of the report is, and how its rows are read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import altair as alt
import psycopg2
from psycopg2.extensions import cursor as Cursor

from flows.errors import ConfigurationError

Row: TypeAlias = Mapping[str, object]
Chart: TypeAlias = alt.Chart | alt.LayerChart | alt.FacetChart
# A wrong query or a missing grant, values that the query can't take, and a query that writes.
_REFUSED = (psycopg2.ProgrammingError, psycopg2.DataError, psycopg2.InternalError)


@dataclass(frozen=True)
class Section:
    """A title, the rows of one query, and a chart of them.

    Attributes:
        reads: the relation of the query; where it does not exist, the section is left out.
        note: what the figures are, with unit and time zone. It is the chart's text for those who
            can't see it, too.
        empty: what the page says if the query returns no rows.
        chart: draws the rows; None for a section that is a table.
    """

    title: str
    reads: str
    query: str
    note: str
    empty: str
    chart: Callable[[Sequence[Row]], Chart] | None = None


def read(cursor: Cursor, section: Section) -> list[Row] | None:
    """The rows of the section, with times in UTC; None if what it reads does not exist.

    Raises:
        ConfigurationError: when Postgres refuses the query.
    """
    try:
        cursor.execute("select to_regclass(%s) is not null", [section.reads])
        if cursor.fetchall() == [(False,)]:
            return None
        cursor.execute(section.query)
    except _REFUSED as error:
        raise ConfigurationError(
            f"Postgres refuses the query of the section {section.title!r}: "
            f"{' '.join(str(error).split())}. Correct it in commands/report/sections.py, or use a "
            f"login that may read {section.reads}."
        ) from error
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor]
