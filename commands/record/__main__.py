"""`make record`: keep real answers of an API under tests/sources, for `make test` to replay.

Loads a few pages of each resource into a scratch database of the local Postgres.
"""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec
import psycopg2
from sqlalchemy.engine import URL

from commands.local_warehouse import add_home_argument
from commands.preview import refresh_tokens
from commands.record import recording, tables
from commands.record.loads import FewPages, replayed
from commands.record.recorder import Recorder, posted_by
from commands.record.recording import Answer, Recording
from commands.record.replay import Replay, moved
from commands.record.scratch import scratch_database
from commands.record.scrubbing import OnlyPseudonyms, Scrubbing, is_json
from commands.waits import shortened
from deployments.env_file import read_environment
from deployments.local.postgres import libpq, postgres
from flows import sources
from flows.errors import ConfigurationError, EltError
from flows.extract.auth import ReadSecret, secret_from_environment
from flows.extract.client import Client
from flows.extract.response import Response
from flows.page import HttpRequest, Page
from flows.source import Partition, Resource, RowsOf, Source
from tests.fault_api.server import misbehaving

PAGES = 3
# As long as the answers of a resource are small, and otherwise
FEWEST_PAGES = 2
PARTITIONS = 3
MOST_BYTES = 30_000
MOST_ANSWER_BYTES = 1_000_000


def main() -> int:
    """Record a source; 1 with a readable reason if that fails, and then nothing is written."""
    parser = argparse.ArgumentParser(prog="make record", description=__doc__)
    parser.add_argument("--source", required=True)
    parser.add_argument("--resource", default="", help="only this one, and its parents")
    parser.add_argument("--folder", type=Path, default=recording.FOLDER, help="where it is kept")
    add_home_argument(parser)
    arguments = parser.parse_args()
    read_environment()
    # The commands say what matters; the loads' own warnings would come in between.
    logging.getLogger("flows").setLevel(logging.ERROR)
    try:
        source = shortened(sources.find(arguments.source))
        wanted = _with_parents(source, arguments.resource)
        with postgres(arguments.home / "postgres") as server:
            recorded = record(server, source, wanted)
            written = keep(server, source, recorded, arguments.folder / source.name)
    except EltError as error:
        print(f"FAILED: {error}\nNothing was written.")
        return 1
    print("\n".join(f"  {path}, {path.stat().st_size:,} bytes" for path in written))
    print(
        "Secrets and personal fields were replaced; read the files before you commit them.\n"
        f"Next:\n  make test TESTS=tests/owner\n  make prove SOURCE={source.name}"
    )
    return 0


def _with_parents(source: Source, name: str) -> list[Resource]:
    """The resource of that name after its parents; all resources without a name."""
    if not name:
        return list(source.resources)
    resource = source.resource(name)
    parent = resource.partitions
    before = _with_parents(source, parent.resource) if isinstance(parent, RowsOf) else []
    return [*before, resource]


def record(
    server: URL,
    source: Source,
    wanted: Sequence[Resource],
    read_secret: ReadSecret = secret_from_environment,
) -> dict[str, Recording]:
    """Load a few pages of each resource, and return what the API answered, scrubbed.

    Raises:
        ConfigurationError: answers that can't be kept.
        EltError: as loads do.
    """
    used: dict[str, str] = {}

    def noted(name: str) -> str:
        used[name] = read_secret(name)
        return used[name]

    taken = {}
    now = datetime.now(UTC).replace(microsecond=0)
    with scratch_database(server) as database:
        for resource in wanted:
            taken[resource.name] = _Take(source, resource, now)
            taken[resource.name].load(database, noted)
    scrubbing = Scrubbing(source.base_url, used)
    # Twice: any answer may quote a personal value or a host that only a later one shows to be one.
    for take in taken.values():
        take.recording(scrubbing)
    return {name: take.recording(scrubbing) for name, take in taken.items()}


class _Take:
    """The recording of one resource."""

    def __init__(self, source: Source, resource: Resource, now: datetime) -> None:
        self._source = replace(source, concurrency=1)
        self._resource = resource
        self._now = now
        self._recorder = Recorder(source)
        self._partitions: Sequence[Partition] = ()
        self._last: dict[str, HttpRequest] = {}

    def load(self, database: URL, read_secret: ReadSecret) -> None:
        """Load a few pages of a few partitions."""
        connect = partial(psycopg2.connect, libpq(database))
        tokens = refresh_tokens(self._source)
        with Client(
            self._source, read_secret, share_token=tokens, watch=self._recorder.watch
        ) as client:
            loads = FewPages(connect, client, self._source, self._now, self._is_enough)
            every = loads.partitions(self._resource)
            self._partitions = every[:PARTITIONS]
            loads.load(self._resource, self._partitions)
        taken = self._recorder
        print(
            f"{self._source.name}.{self._resource.name}: {len(taken.taken)} requests, "
            f"{taken.size_bytes:,} bytes; partitions: {len(self._partitions)} of {len(every)}, "
            f"with more pages than were recorded: {len(self._last)}",
            flush=True,
        )

    def _is_enough(self, partition: Partition, page: Page, number: int) -> bool:
        is_large = self._recorder.size_bytes >= MOST_BYTES
        is_enough = number >= (FEWEST_PAGES if is_large else PAGES)
        if is_enough and page.resume is not None and page.request is not None:
            self._last[partition.name] = page.request
        return is_enough

    def recording(self, scrubbing: Scrubbing) -> Recording:
        """What was recorded, scrubbed."""
        for request, _ in self._recorder.taken.values():
            scrubbing.add_host(request.url)
        answers = [
            _answer(scrubbing, self._body(scrubbing, *each), *each)
            for each in self._recorder.taken.values()
        ]
        return Recording(
            recorded_at=self._now,
            base_path=_path(self._source.base_url),
            partitions=[scrubbing.text(partition.name) for partition in self._partitions],
            last={
                scrubbing.text(name): scrubbing.text(str(request))
                for name, request in self._last.items()
            },
            answers=answers,
        )

    def _body(self, scrubbing: Scrubbing, request: HttpRequest, response: Response) -> str:
        owner = f"{self._source.name}.{self._resource.name}"
        if len(response.body) > MOST_ANSWER_BYTES:
            raise ConfigurationError(
                f"{owner} answers with {len(response.body):,} bytes, too many for git: make its "
                f"pages smaller than {MOST_ANSWER_BYTES:,} bytes while you record it."
            )
        try:
            text = response.body.decode()
        except UnicodeDecodeError as error:
            raise ConfigurationError(
                f"{owner} answers with {response.headers.get('Content-Type')}, which is not text "
                "in UTF-8: no secret could be found in it. Record the other resources: "
                f"make record SOURCE={self._source.name} RESOURCE=…"
            ) from error
        return scrubbing.body(text, self._resource.personal)


def _answer(scrubbing: Scrubbing, body: str, request: HttpRequest, response: Response) -> Answer:
    headers = {
        name: scrubbing.text(value)
        for name, value in response.headers.read().items()  # type: ignore[attr-defined]
    }
    if response.location is not None:
        headers["location"] = scrubbing.text(response.location)
    as_json = is_json(body)
    return Answer(
        method=request.method,
        target=scrubbing.target(request.url),
        sent={name.lower(): scrubbing.text(value) for name, value in request.headers.items()},
        posted=scrubbing.value(posted_by(request)),
        status=response.status,
        headers=headers,
        body=msgspec.Raw(body) if as_json else msgspec.UNSET,
        lines=[] if as_json else body.split("\n"),
    )


def _path(url: str) -> str:
    return "/" + url.split("://", 1)[1].partition("/")[2]


def keep(
    server: URL, source: Source, recorded: Mapping[str, Recording], folder: Path
) -> list[Path]:
    """Replay what was recorded, and write it with the tables that it fills.

    Recordings of other resources stay; those of resources that are no longer declared go.

    Raises:
        EltError: it can't be replayed; nothing is written.
    """
    declared = {resource.name for resource in source.resources}
    present = recording.read(folder, recorded) if any(folder.glob("*.json")) else {}
    whole = {name: each for name, each in (present | dict(recorded)).items() if name in declared}
    expected = _replayed(server, source, whole)
    folder.mkdir(parents=True, exist_ok=True)
    for name in present.keys() - whole.keys():
        (folder / f"{name}.json").unlink()
    contents = {f"{name}.json": recording.to_json(each) for name, each in recorded.items()}
    contents[recording.EXPECTED] = expected.encode()
    for name, content in contents.items():
        _replace(folder / name, content)
    return [folder / name for name in contents]


def _replace(file: Path, content: bytes) -> None:
    """Write all of a file or, if the command is killed, none of it."""
    written = file.with_suffix(".part")
    written.write_bytes(content)
    written.replace(file)


def _replayed(server: URL, source: Source, recordings: Mapping[str, Recording]) -> str:
    """The tables that the recordings fill."""
    print("Replaying it ...", flush=True)
    if any(resource.personal for resource in source.resources):
        with scratch_database(server) as database:
            load_all(database, _checked(source), recordings)
    with scratch_database(server) as database:
        load_all(database, source, recordings)
        tables.build_staging(database, {source.name: [*recordings]})
        return tables.described(database, source.name, ordered(source, recordings))


def _checked(source: Source) -> Source:
    """The source with loads that refuse personal fields that were not scrubbed."""
    resources = tuple(
        replace(resource, personal={path: OnlyPseudonyms("", path) for path in resource.personal})
        for resource in source.resources
    )
    return replace(source, resources=resources)


def ordered(source: Source, recordings: Mapping[str, Recording]) -> list[str]:
    """The names of the recorded resources, parents first."""
    found: list[str] = []
    for resource in source.resources:
        if resource.name in recordings:
            found += [each.name for each in _with_parents(source, resource.name)]
    return list(dict.fromkeys(found))


def load_all(database: URL, source: Source, recordings: Mapping[str, Recording]) -> None:
    """Load all recorded resources of a source from their recordings, parents first.

    Raises:
        EltError: a recording does not fit the declaration.
    """
    connect = partial(psycopg2.connect, libpq(database))
    with misbehaving(Replay(source, recordings), is_alone=True) as url:
        for name in ordered(source, recordings):
            recorded = recordings[name]
            there = moved(source, url, recorded.base_path)
            replayed(connect, there, there.resource(name), recorded)


if __name__ == "__main__":
    sys.exit(main())
