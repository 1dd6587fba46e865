"""`dbt source freshness` looks at the ledger: when each table was last loaded in full."""

from collections.abc import Callable
from pathlib import Path

from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from flows.load import ledger
from tests.dbt_project.running_dbt import Dbt

Query = Callable[..., list[tuple]]

ENDED = """
insert into elt.loads
    (source, resource, partition, state, ended_at, replays, is_backfill)
values (%s, %s, %s, %s, now() - interval '1 hour' * %s, %s, %s)
returning load_id
"""


def test_each_table_is_as_fresh_as_its_last_load(
    database: URL, connection: Connection, query: Query, tmp_path: Path
) -> None:
    with connection, connection.cursor() as cursor:
        ledger.prepare(cursor, "raw_market")

    def ended(
        table: str,
        hours_ago: float,
        partition: str = "",
        state: str = "succeeded",
        replays: int | None = None,
        is_backfill: bool = False,
    ) -> int:
        name = table.split(".")
        ((load_id,),) = query(ENDED, *name, partition, state, hours_ago, replays, is_backfill)
        return int(load_id)

    ended("market.orders", 100)
    ended("market.orders", 1)
    ended("market.customers", 31)
    ended("market.products", 55)
    ended("market.products", 1, state="failed")
    ended("market.categories", 1, state="failed")
    ended("market.employees", 31)
    ended("market.employees", 1, replays=ended("market.employees", 31))
    ended("market.suppliers", 1)
    ended("market.suppliers", 55, partition="1996", is_backfill=True)
    ended("market.order_details", 1, partition="shop 1")
    ended("market.order_details", 1, partition="shop 2", state="failed")
    ended("climate.daily_weather", 1, partition="London")
    ended("climate.daily_weather", 55, partition="Paris")

    dbt = Dbt(database, tmp_path)
    code, printed = dbt.run("source", "freshness")

    assert code == 1, printed
    assert {
        result["unique_id"].removeprefix("source.warehouse."): result["status"]
        for result in dbt.artifact("sources")["results"]
    } == {
        "market.orders": "pass",
        "market.customers": "warn",  # one load is missed
        "market.products": "error",  # two are; the failed one does not count
        "market.categories": "error",  # none has succeeded
        "market.shippers": "error",  # never loaded
        "market.employees": "warn",  # a replay did not ask the API
        "market.suppliers": "pass",  # a backfill's window is loaded once
        "market.order_details": "error",  # a partition was never loaded
        "climate.daily_weather": "error",  # a city is no longer loaded
    }
