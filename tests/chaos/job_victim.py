"""A load of a job's result that ends by SIGKILL at a step of its own."""

import json
import os
import signal
import sys
from contextlib import closing
from dataclasses import asdict
from functools import partial

import psycopg2
from psycopg2.extensions import connection as Connection

from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.extract.selectors import records_at
from flows.load.ledger import Entry
from flows.load.loader import load
from flows.source import Disposition, Job, Partition, Resource, Source
from tests.chaos.victim import NAME, Death, Session, interrupt


def load_exports(connection: Connection, api_url: str, writes: Disposition) -> Entry:
    """Load what a job exports."""
    exports = Resource(
        "items",
        "jobs",
        records_at("records"),
        method="POST",
        body={"all": True},
        key=() if writes == "append" else ("id",),
        disposition=writes,
        job=Job("jobs/{id}", "{url}", "state", ("done",), interval_seconds=0.001),
    )
    source = Source("shop", api_url, (exports,))
    with Client(source) as client:
        pages = partial(read_pages, client, source, exports, Partition())
        return load(connection, "shop", exports, Partition(), pages)


def order(dsn: str, api_url: str, writes: Disposition, death: Death) -> str:
    """The program's argument."""
    return json.dumps({"dsn": dsn, "api_url": api_url, "writes": writes, "death": asdict(death)})


def main(argument: str) -> None:
    """Load as ordered."""
    wanted = json.loads(argument)
    interrupt(Death(**wanted["death"]), lambda: os.kill(os.getpid(), signal.SIGKILL))
    connection = psycopg2.connect(wanted["dsn"], connection_factory=Session, application_name=NAME)
    with closing(connection):
        load_exports(connection, wanted["api_url"], wanted["writes"])


if __name__ == "__main__":
    main(sys.argv[1])
