"""`make prove`: load a source's recorded answers under every fault and kill, and count the rows.

Each disturbed load, and the next one if it failed, must end with the rows of an undisturbed load.
"""

import argparse
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import psycopg2
from sqlalchemy.engine import URL

from commands.local_warehouse import add_home_argument
from commands.prove.certificate import certificate
from commands.prove.trials import Case, Lab, under_faults, under_kills
from commands.record import recording
from commands.record.__main__ import load_all, ordered
from commands.record.loads import FewPages, chosen
from commands.record.recording import Recording
from commands.record.replay import Replay, moved
from commands.record.scratch import scratch_database
from commands.record.scrubbing import dummy_secret
from deployments.local.postgres import libpq, postgres
from flows import sources
from flows.errors import ConfigurationError, EltError
from flows.extract import client as extracting
from flows.extract.client import Client
from flows.source import Partition, Source
from tests.fault_api.server import misbehaving

MINUTES = 15
SHOWN_EVERY_SECONDS = 5.0


def main() -> int:
    """Prove a source; 1 if anything was lost or doubled, or nothing could be proved."""
    parser = argparse.ArgumentParser(prog="make prove", description=__doc__)
    parser.add_argument("--source", required=True)
    parser.add_argument("--resource", default="", help="only this one")
    parser.add_argument("--folder", type=Path, default=recording.FOLDER, help="of all recordings")
    parser.add_argument("--certificate", type=Path, help="by default in the source's folder")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="how long it may take")
    add_home_argument(parser)
    arguments = parser.parse_args()
    logging.getLogger("flows").setLevel(logging.CRITICAL)
    # The waits before another attempt would take an hour, and prove nothing.
    extracting.sleep = lambda _: None  # type: ignore[attr-defined]
    began_at = time.monotonic()
    due_at = began_at + 60 * arguments.minutes
    print(f"This takes {arguments.minutes:g} minutes at most.", flush=True)
    cases: list[Case] = []
    is_whole = True
    try:
        source = sources.find(arguments.source)
        folder = arguments.folder / source.name
        with postgres(arguments.home / "postgres") as server:
            for case in prove(server, source, folder, arguments.resource):
                cases.append(case)
                if is_whole := time.monotonic() < due_at:
                    continue
                break
    except EltError as error:
        print(f"FAILED: {error}")
        return 1
    text = certificate(source.name, cases, time.monotonic() - began_at, is_whole)
    path = arguments.certificate or folder / "certificate.md"
    path.write_text(text)
    print(f"\n{text}\nWritten: {path}")
    is_proof = is_whole and any(case.rows for case in cases)
    return int(not is_proof or any(case.is_bad for case in cases))


def prove(server: URL, source: Source, folder: Path, resource: str = "") -> Iterator[Case]:
    """All cases of the recorded resources, or of one of them.

    Raises:
        ConfigurationError: nothing of the resource is recorded.
        EltError: an undisturbed load fails.
    """
    recordings = recording.read(folder)
    chosen_names = [source.resource(resource).name] if resource else ordered(source, recordings)
    if missing := [name for name in chosen_names if name not in recordings]:
        raise ConfigurationError(
            f"Nothing of {source.name}.{missing[0]} is recorded. {recording.remedy(source.name)}"
        )
    with scratch_database(server) as whole, scratch_database(server) as database:
        load_all(whole, source, recordings)
        with misbehaving(Replay(source, recordings), is_alone=True) as url:
            for name in chosen_names:
                its = _partitions(whole, url, source, name, recordings[name])
                recorded = source.resource(name), recordings[name]
                yield from _shown(name, _cases(Lab(url, database, source, *recorded, its, folder)))


def _partitions(
    whole: URL, url: str, source: Source, name: str, recorded: Recording
) -> Sequence[Partition]:
    """The recorded partitions of a resource, whose parents are loaded in `whole`."""
    connect = partial(psycopg2.connect, libpq(whole))
    there = moved(source, url, recorded.base_path)
    with Client(there, dummy_secret) as client:
        every = FewPages(connect, client, there, recorded.recorded_at, lambda *_: True)
        found = every.partitions(there.resource(name))
    return chosen(found, source, source.resource(name), recorded)


def _cases(lab: Lab) -> Iterator[Case]:
    lab.empty()
    lab.plan()
    lab.load(lab.partitions)
    wanted, usual = lab.rows(), lab.requests()
    if not usual:
        return iter([Case(lab.resource.name, "none: it has no request", "", 0, 0, 0, rows=0)])
    return chain(under_faults(lab, wanted, usual), under_kills(lab, wanted, usual))


def _shown(name: str, cases: Iterator[Case]) -> Iterator[Case]:
    """The cases, with the progress on the terminal."""
    shown_at, count = 0.0, 0
    for count, case in enumerate(cases, start=1):
        if time.monotonic() - shown_at >= SHOWN_EVERY_SECONDS:
            shown_at = time.monotonic()
            print(f"{name}: load {count}, disturbed by {case.disturbance}", flush=True)
        yield case
    print(f"{name}: done, disturbed loads: {count}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
