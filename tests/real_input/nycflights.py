"""Every flight that left New York City in 2013, with the weather, planes, airports and airlines.

As Datasette serves SQLite tables: 1,000 rows a page, the next page's address under `next_url`, and
a `rowid` in front of tables that declare no primary key.
"""

from flows.extract.paginators import next_url
from flows.extract.selectors import records_at
from flows.source import Resource, Source

ROWS_A_PAGE = 1000
COUNTS_NOTHING = {"_nocount": "1", "_nosuggest": "1", "_nofacet": "1"}


def table(name: str, *key: str) -> Resource:
    """A table that is read whole and merged by its key."""
    return Resource(
        name=name,
        path=f"{name}.json",
        params={"_shape": "objects", "_size": str(ROWS_A_PAGE), **COUNTS_NOTHING},
        records=records_at("rows"),
        paging=next_url("next_url"),
        key=key,
    )


def source(base_url: str) -> Source:
    """The source, wherever its Datasette runs.

    Weather is known by UTC: by local time, an hour comes twice when the clocks go back.
    """
    return Source(
        name="nycflights",
        base_url=base_url,
        resources=(
            table("flights", "time_hour", "carrier", "flight", "origin"),
            table("weather", "origin", "time_hour"),
            table("planes", "tailnum"),
            table("airports", "faa"),
            table("airlines", "carrier"),
        ),
    )
