"""Promises of loads of jobs: the job is committed first, and the next load goes on with it."""

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.errors import BadPayloadError, ConfigurationError, JobFailedError, UnavailableError
from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.extract.paginators import next_url
from flows.extract.selectors import records_at
from flows.load.ledger import Entry
from flows.load.loader import load
from flows.load.options import LoadOptions
from flows.load.side_by_side import load_side_by_side
from flows.source import Cursor, Job, Partition, Resource, Rule, Source
from tests.http_servers import Answer, Asked, Serve, Server

Query = Callable[..., list[tuple[Any, ...]]]

KEPT = "select resume ->> 'url' from elt.checkpoints"
JOB = Job("jobs/{id}", "jobs/{id}/result", "state", ("done",), ("failed",), interval_seconds=0.001)
# The retry of a run has the same id.
FULL_REFRESH = LoadOptions(full_refresh=True, run_id="run")
SEVERAL = {"/jobs": {"id": 1}, "/jobs/1": {"state": "done", "files": ["/a", "/b"]}}
IN_FILES = replace(JOB, download=lambda page: page.document["files"], expired=(410,))
IMPATIENT = replace(JOB, interval_seconds=0.5, max_seconds=0.9)


@dataclass
class Api:
    """Numbers its jobs; `look` sees each request for a status; `states` are said in turn."""

    states: Iterator[str] | None = None
    look: Callable[[Asked], None] = lambda _: None
    jobs: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, asked: Asked) -> Answer:
        if asked.method == "POST":
            self.jobs.append(json.loads(asked.body))
            return said({"id": len(self.jobs)}, 202)
        number = int(asked.split("/")[2])
        if asked.endswith("result"):
            return said([{"id": number, "of": self.jobs[number - 1].get("since")}])
        self.look(asked)
        return said({"id": number, "state": next(self.states) if self.states else "done"})


def said(document: Any, status: int = 200) -> Answer:
    return Answer(json.dumps(document).encode(), status)


def exports(**declared: Any) -> Resource:
    given = {"records": records_at(), "method": "POST", "body": {}, "key": ("id",), "job": JOB}
    return Resource("orders", "jobs", **{**given, **declared})


def run(
    connection: Connection, server: Server, resource: Resource, options: LoadOptions | None = None
) -> Entry:
    source = Source("shop", server.url, (resource,), max_wait_seconds=0)
    with Client(source) as client:
        pages = partial(read_pages, client, source, resource, Partition())
        return load(connection, "shop", resource, Partition(), pages, options or LoadOptions())


@pytest.mark.parametrize("writes", ["merge", "append", "replace"])
def test_a_job_is_committed_before_its_status_is_requested(
    serve: Serve, connection: Connection, query: Query, writes: Any
) -> None:
    seen: list[Any] = []
    api = Api(look=lambda asked: seen.append(query(KEPT)))
    server = serve(api)
    key = () if writes == "append" else ("id",)
    entry = run(connection, server, exports(disposition=writes, key=key))
    assert seen == [[(f"{server.url}jobs/1",)]]
    assert (entry.state, entry.pages, entry.extracted, entry.inserted) == ("succeeded", 1, 1, 1)
    assert query(KEPT) == [(None,)]


@pytest.mark.parametrize("options", [LoadOptions(), FULL_REFRESH], ids=str)
@pytest.mark.parametrize("writes", ["merge", "append", "replace"])
def test_a_load_goes_on_with_the_job_of_the_one_before(
    serve: Serve, connection: Connection, query: Query, writes: Any, options: LoadOptions
) -> None:
    api = Api(iter(["running", "done"]))
    server = serve(api)
    key = () if writes == "append" else ("id",)
    resource = exports(disposition=writes, key=key, job=IMPATIENT)
    with pytest.raises(UnavailableError, match="goes on with this job"):
        run(connection, server, resource, options)
    assert run(connection, server, resource, options).inserted == 1
    assert len(api.jobs) == 1


@pytest.mark.parametrize("writes", ["merge", "append", "replace"])
def test_a_full_refresh_leaves_the_job_of_an_earlier_run(
    serve: Serve, connection: Connection, writes: Any
) -> None:
    """Its result may lack what the refresh is for."""
    api = Api(iter(["running", "done"]))
    server = serve(api)
    key = () if writes == "append" else ("id",)
    resource = exports(disposition=writes, key=key, job=IMPATIENT)
    with pytest.raises(UnavailableError):
        run(connection, server, resource, LoadOptions(run_id="earlier run"))
    assert run(connection, server, resource, FULL_REFRESH).inserted == 1
    assert len(api.jobs) == 2


@pytest.mark.usefixtures("slept")
def test_a_job_that_has_failed_is_submitted_again_by_the_next_load(
    serve: Serve, connection: Connection, query: Query
) -> None:
    api = Api(iter(["failed", "failed", "done"]))
    server = serve(api)
    with pytest.raises(JobFailedError):
        run(connection, server, exports())
    assert query("select state, error like %s from elt.loads", "%ended as 'failed'%") == [
        ("failed", True)
    ]
    assert run(connection, server, exports()).inserted == 1
    assert len(api.jobs) == 2


@pytest.mark.parametrize("status", [400, 403])
@pytest.mark.parametrize("options", [LoadOptions(), LoadOptions(full_refresh=True)], ids=str)
def test_an_append_leaves_a_job_that_the_api_refuses(
    serve: Serve, connection: Connection, options: LoadOptions, status: int
) -> None:
    """Nothing of that job is stored, so another one stores nothing twice."""
    api = Api()

    def answer(asked: Asked) -> Answer:
        return Answer(b"refused", status) if asked.endswith("/1/result") else api(asked)

    server = serve(answer)
    resource = exports(disposition="append", key=())
    with pytest.raises(ConfigurationError, match="refused"):
        run(connection, server, resource)
    assert run(connection, server, resource, options).inserted == 1
    assert len(api.jobs) == 2


def test_an_append_leaves_a_job_that_never_ends(
    serve: Serve, connection: Connection, query: Query
) -> None:
    api = Api(iter(["running", "done"]))
    server = serve(api)
    resource = exports(disposition="append", key=(), job=IMPATIENT)
    with pytest.raises(UnavailableError):
        run(connection, server, resource)
    query("update elt.checkpoints set saved_at = saved_at - interval '13 hours' returning 1")
    assert run(connection, server, resource).inserted == 1
    assert len(api.jobs) == 2


@pytest.mark.parametrize("writes", ["merge", "append", "replace"])
def test_a_result_that_fails_on_a_later_page_is_stored_once(
    serve: Serve, connection: Connection, query: Query, writes: Any
) -> None:
    """The next load goes on with the job, and reads its result from the first page."""
    api, is_down = Api(), True

    def answer(asked: Asked) -> Answer:
        if asked.endswith("?page=2"):
            return said({"items": [{"id": 2}]}, 500 if is_down else 200)
        return said({"items": [{"id": 1}], "next": "?page=2"}) if "result" in asked else api(asked)

    server = serve(answer)
    key = () if writes == "append" else ("id",)
    resource = exports(
        disposition=writes, key=key, records=records_at("items"), paging=next_url("next"),
        checkpoint_rows=1,
    )  # fmt: skip
    with pytest.raises(UnavailableError):
        run(connection, server, resource)
    is_down = False
    assert run(connection, server, resource).inserted == 2
    assert query("select id from raw_shop.orders order by id") == [(1,), (2,)]
    assert len(api.jobs) == 1


def test_an_append_whose_first_rows_are_stored_never_leaves_them(
    serve: Serve, connection: Connection, query: Query
) -> None:
    """The job of a later slice is not the first thing that its load keeps."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    api = Api(iter(["done", "running", "done"]))
    server = serve(api)
    resource = exports(
        body={"since": "{since:%Y-%m-%d}"},
        cursor=Cursor("of", start=today - timedelta(days=2), step=timedelta(days=1)),
        disposition="append", key=(), job=IMPATIENT,
    )  # fmt: skip
    with pytest.raises(UnavailableError):
        run(connection, server, resource)
    query("update elt.checkpoints set saved_at = saved_at - interval '13 hours' returning 1")
    run(connection, server, resource)
    assert query("select id from raw_shop.orders order by id") == [(1,), (2,)]


def test_an_append_leaves_the_job_of_another_request(serve: Serve, connection: Connection) -> None:
    """Nothing of that job is stored."""
    api = Api(iter(["running", "done"]))
    server = serve(api)
    resource = exports(disposition="append", key=(), job=IMPATIENT)
    with pytest.raises(UnavailableError):
        run(connection, server, resource)
    assert run(connection, server, replace(resource, body={"since": 2})).inserted == 1
    assert [job.get("since") for job in api.jobs] == [None, 2]


@pytest.mark.parametrize("options", [LoadOptions(), FULL_REFRESH], ids=str)
def test_a_job_up_to_a_time_keeps_its_end(
    serve: Serve, connection: Connection, monkeypatch: pytest.MonkeyPatch, options: LoadOptions
) -> None:
    """The next load would otherwise ask for another end, and so for another job."""
    api = Api(iter(["running", "done"]))
    server = serve(api)
    ends = iter([datetime(2026, 3, day, tzinfo=UTC) for day in (1, 2)])
    monkeypatch.setattr("flows.load.options._end", lambda *_: next(ends))
    cursor = Cursor("of", start=datetime(2026, 1, 1, tzinfo=UTC), lag=timedelta(minutes=1))
    resource = exports(
        body={"since": "{since}", "until": "{until}"},
        cursor=cursor, disposition="replace", job=IMPATIENT,
    )  # fmt: skip
    with pytest.raises(UnavailableError):
        run(connection, server, resource, options)
    run(connection, server, resource, options)
    assert len(api.jobs) == 1


@pytest.mark.usefixtures("slept")
@pytest.mark.parametrize("key", [("id",), ()], ids=["merge", "append"])
def test_a_page_is_never_taken_for_a_job(
    serve: Serve, connection: Connection, query: Query, key: tuple[str, ...]
) -> None:
    """A list whose load did not complete has become an export: its next page is no status."""
    is_export = False

    def answer(asked: Asked) -> Answer:
        if asked == "/jobs?page=2":
            return said({"items": [{"id": 2}]}, 200 if is_export else 400)
        if asked == "/jobs/1":
            return said({"items": [{"id": 1}, {"id": 2}]})
        if is_export:
            return Answer(b"{}", 202, {"Location": "/jobs/1"})
        return said({"items": [{"id": 0}], "next": "/jobs?page=2"})

    server = serve(answer)
    listed = exports(key=key, job=None, records=records_at("items"), checkpoint_rows=1)
    with pytest.raises(ConfigurationError):
        run(connection, server, replace(listed, paging=next_url("next")))
    is_export = True
    exported = replace(listed, job=Job())
    if not key:
        query("update elt.checkpoints set saved_at = saved_at - interval '13 hours' returning 1")
        with pytest.raises(ConfigurationError, match=r"would store the rows .* twice"):
            run(connection, server, exported)
        assert query("select id from raw_shop.orders") == [(0,)]
        return
    run(connection, server, exported)
    assert query("select id from raw_shop.orders order by id") == [(0,), (1,), (2,)]


@pytest.mark.usefixtures("slept")
def test_each_slice_of_a_window_is_a_job(
    serve: Serve, connection: Connection, query: Query
) -> None:
    """A replace that was interrupted goes on with its first job: it stored none of their rows."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    api = Api(iter(["done", "failed", *["done"] * 9]))
    server = serve(api)
    resource = exports(
        body={"since": "{since:%Y-%m-%d}"},
        cursor=Cursor("of", start=today - timedelta(days=3), step=timedelta(days=1)),
        disposition="replace",
    )  # fmt: skip
    with pytest.raises(JobFailedError):
        run(connection, server, resource)
    run(connection, server, resource)
    days = [f"{today - timedelta(days=ago):%Y-%m-%d}" for ago in (3, 2, 1)]
    assert [job["since"] for job in api.jobs] == [*days[:2], *days[1:]]
    assert query("select count(*) from raw_shop.orders") == [(3,)]


@pytest.mark.usefixtures("slept")
def test_many_partitions_commit_their_jobs_first_as_well(
    serve: Serve, database: URL, query: Query
) -> None:
    """They are not stored in a group, which commits when all is read."""
    unkept: list[str] = []

    def look(asked: Asked) -> None:
        kept = [url for (url,) in query(f"{KEPT} where resume is not null")]
        unkept.extend([str(asked)] if not any(url.endswith(asked) for url in kept) else [])

    api = Api(look=look)
    partitions = tuple(Partition(str(n), {"shop": n}) for n in range(6))
    resource = exports(
        body=lambda partition, _: {"shop": partition.values["shop"]},
        partitions=partitions, partition_columns=("shop",), key=("shop", "id"),
    )  # fmt: skip
    source = Source("shop", serve(api).url, (resource,))
    connect = partial(psycopg2.connect, libpq(database))
    with Client(source) as client:
        read = partial(read_pages, client, source, resource)
        _, errors = load_side_by_side(
            connect, "shop", resource, partitions, lambda: nullcontext(read), LoadOptions(), 1
        )
    assert errors == unkept == []
    assert query("select count(*), count(distinct shop) from raw_shop.orders") == [(6, 6)]


@pytest.mark.parametrize("writes", ["merge", "append", "replace"])
def test_a_limited_load_reads_all_parts_of_a_result(
    serve: Serve, connection: Connection, query: Query, writes: Any
) -> None:
    """Between them there is no place to read on from, so a part would count as the whole."""
    server = serve(lambda asked: said(SEVERAL.get(asked) or [{"id": ord(asked[1])}]))
    key = () if writes == "append" else ("id",)
    resource = exports(job=IN_FILES, disposition=writes, key=key)
    assert run(connection, server, resource, LoadOptions(limit=1)).extracted == 2
    assert query("select id from raw_shop.orders order by 1") == [(97,), (98,)]


@pytest.mark.parametrize("missing", ["/a", "/b"])
@pytest.mark.parametrize(("writes", "options"), [("replace", None), ("merge", FULL_REFRESH)])
def test_a_result_that_lacks_a_file_replaces_no_table(
    serve: Serve, connection: Connection, query: Query, writes: Any, options: Any, missing: str
) -> None:
    """A file of status 204 has no records."""
    status = 200
    server = serve(
        lambda asked: said(
            SEVERAL.get(asked) or [{"id": ord(asked[1])}], status if asked == missing else 200
        )
    )
    rules = (Rule("ignore", status=404),)
    resource = exports(job=IN_FILES, disposition=writes, rules=rules)
    run(connection, server, resource)
    status = 404
    with pytest.raises(BadPayloadError, match="The list would be incomplete"):
        run(connection, server, resource, options)
    assert query("select id from raw_shop.orders order by 1") == [(97,), (98,)]
    status = 204
    assert run(connection, server, resource, options).deleted == 1
