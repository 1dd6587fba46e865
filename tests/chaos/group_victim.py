"""A run of two accounts or of many partitions that ends by SIGKILL at a step of its own."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

import psycopg2

from flows.extract.auth import Bearer
from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.extract.paginators import next_url
from flows.extract.selectors import records_at
from flows.load import checkpoints, ledger, partition_reader, side_by_side
from flows.load.group import Group
from flows.load.loader import Loader
from flows.load.options import DEFAULT_OPTIONS
from flows.load.partition_reader import ReadPages
from flows.load.side_by_side import load_side_by_side
from flows.load.staging_table import StagingTable
from flows.source import Accounts, Partition, Resource, RowsOf, Source
from tests.chaos.victim import NAME, Death, Session, interrupt

PARTITIONS = 40
THREADS = 8
# Its pages are more than a group takes, so it is loaded on its own.
LARGE = 17
STEPS: dict[str, tuple[Any, str]] = {
    "lock": (ledger, "lock"),
    "begin": (ledger, "begin"),
    "plan": (Group, "plan"),
    "page": (Client, "get"),
    "store": (Group, "store"),
    "separate": (Group, "_separate"),
    "copy": (StagingTable, "_copy"),
    "flush": (StagingTable, "flush"),
    "account": (ledger, "add_counts"),
    "remember": (checkpoints, "save_many"),
    "remember one": (checkpoints, "save"),
    "alone": (Loader, "run"),
    "end": (ledger, "end"),
    "commit": (Session, "__exit__"),
}
# Half of the orders belong to each account; the API refuses the token of the other one.
TOKENS = {"even": "token-of-even", "odd": "token-of-odd"}
ACCOUNTS = Accounts({account: Bearer(account) for account in TOKENS})
LINES = Resource(
    "lines",
    "orders/{order}/lines",
    records_at("rows"),
    paging=next_url("next"),
    key=("account", "order", "line"),
    partitions=RowsOf("orders", {"account": "account", "order": "id"}, changed_only=True),
    partition_columns=("account", "order"),
)
ORDERS = Resource(
    "orders",
    "orders",
    records_at("rows"),
    paging=next_url("next"),
    key=("account", "id"),
    partitions=ACCOUNTS.partitions,
    partition_columns=("account",),
    checkpoint_rows=1,
)


def account_of(order: int) -> str:
    """Whose order it is."""
    return "odd" if order % 2 else "even"


def run(dsn: str, api_url: str, version: int) -> list[Any]:
    """Load every partition that is due; `version` is the load that last changed the parents.

    Without a version, load the parents themselves, one account after the other. Returns the errors.
    """
    side_by_side.GROUP_PARTITIONS = 6
    partition_reader.SMALL_BYTES = 5000
    side_by_side.PLANNED_AT_ONCE = 15
    resources = (ORDERS, LINES)
    source = Source("shop", api_url, resources, ACCOUNTS, concurrency=THREADS, max_wait_seconds=0)
    given = tuple(
        Partition(str(n), {"account": account_of(n), "order": n}, parent_load_id=version)
        for n in range(PARTITIONS)
    )
    loaded, threads = (LINES, THREADS) if version else (ORDERS, 1)
    partitions = given if version else ACCOUNTS.partitions
    connect = partial(psycopg2.connect, dsn, connection_factory=Session, application_name=NAME)
    with Client(source, TOKENS.__getitem__) as client:

        @contextmanager
        def reader() -> Iterator[ReadPages]:
            with client.sibling() as own:
                yield partial(read_pages, own, source, loaded)

        _, errors = load_side_by_side(
            connect, "shop", loaded, partitions, reader, DEFAULT_OPTIONS, threads
        )
        return errors


def order(dsn: str, api_url: str, version: int, death: Death) -> str:
    """The program's argument."""
    wanted = {"dsn": dsn, "api_url": api_url, "version": version}
    return json.dumps({"run": wanted, "death": asdict(death)})


def main(argument: str) -> None:
    """Run as ordered."""
    wanted = json.loads(argument)
    death = Death(**wanted["death"])
    interrupt(death, lambda: os.kill(os.getpid(), signal.SIGKILL), steps=STEPS)
    run(**wanted["run"])


if __name__ == "__main__":
    main(sys.argv[1])
