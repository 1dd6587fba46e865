"""Loads all resources of an example as a run does; as a program, until it dies at a step."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from functools import partial
from importlib import import_module
from urllib.parse import urlsplit

import psycopg2
from psycopg2.extensions import connection as Connection

from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.load.ledger import Entry
from flows.load.options import DEFAULT_OPTIONS
from flows.load.partition_reader import ReadPages
from flows.load.partitions import partitions_of
from flows.load.side_by_side import load_side_by_side
from flows.source import Resource, Source
from tests.chaos.group_victim import STEPS as GROUP_STEPS
from tests.chaos.victim import NAME, STEPS, Death, Session, interrupt


def moved(source: Source, url: str) -> Source:
    """The source at another address; small loads have several checkpoints."""
    base_url = url.rstrip("/") + urlsplit(source.base_url).path
    resources = tuple(replace(each, checkpoint_rows=10) for each in source.resources)
    return replace(source, base_url=base_url, resources=resources)


def load_all(connect: Callable[[], Connection], source: Source) -> list[Entry]:
    """Load the resources in their order, parents first.

    Raises:
        EltError: the first error of a load.
    """
    found: list[Entry] = []
    with Client(source) as client:
        for resource in source.resources:
            with closing(connect()) as connection:
                partitions = partitions_of(connection, source.name, resource)
            entries, errors = load_side_by_side(
                connect,
                source.name,
                resource,
                partitions,
                partial(_reader, client, source, resource),
                DEFAULT_OPTIONS,
                source.concurrency,
            )
            if errors:
                raise errors[0]
            found += entries
    return found


@contextmanager
def _reader(client: Client, source: Source, resource: Resource) -> Iterator[ReadPages]:
    with client.sibling() as own:
        yield partial(read_pages, own, source, resource)


def order(module: str, dsn: str, api_url: str, death: Death) -> list[str]:
    """The command that loads an example and dies."""
    argument = {"module": module, "dsn": dsn, "api_url": api_url, "death": asdict(death)}
    return [sys.executable, "-m", "tests.example_sources.loading", json.dumps(argument)]


def main(argument: str) -> None:
    """Load as ordered."""
    wanted = json.loads(argument)
    death = Death(**wanted["death"])
    interrupt(death, lambda: os.kill(os.getpid(), signal.SIGKILL), steps=GROUP_STEPS | STEPS)
    source = moved(import_module(wanted["module"]).SOURCE, wanted["api_url"])
    connect = partial(
        psycopg2.connect, wanted["dsn"], connection_factory=Session, application_name=NAME
    )
    load_all(connect, source)


if __name__ == "__main__":
    main(sys.argv[1])
