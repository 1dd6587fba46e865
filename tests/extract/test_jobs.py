"""Promises of jobs: what is requested and when, which answers end them, who gets the login."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from conftest import Answer, Asked, Serve, Server

from flows.errors import (
    BadPayloadError,
    ConfigurationError,
    JobFailedError,
    NotFoundError,
    UnavailableError,
)
from flows.extract.auth import Bearer
from flows.extract.client import Client, StoppedError
from flows.extract.paginators import offset
from flows.extract.selectors import csv_rows, records_at
from flows.personal_data import dropped
from flows.source import Job, Resource, Source
from tests.extract.reading import read, rows

STATES = Job("jobs/{id}", "jobs/{id}/result", "state", ("done",), ("failed", "cancelled"))
ROWS = [{"id": 1}, {"id": 2}]

pytestmark = pytest.mark.usefixtures("slept")


def said(document: Any, status: int = 200, **headers: str) -> Answer:
    known = {"Content-Type": "application/json"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(json.dumps(document).encode(), status, known | named)


def exports(job: Job = STATES, **declared: Any) -> Resource:
    given = {"records": records_at("items"), "method": "POST", "body": {"since": 1}, "job": job}
    return Resource("orders", "jobs", **{**given, **declared})


def api(serve: Serve, states: Iterator[Any], result: Answer | None = None) -> Server:
    """Submits job after job; says one status after the other, of whichever job."""
    jobs = iter(range(7, 20))

    def answer(asked: Asked) -> Answer:
        if asked.method == "POST":
            return said({"id": next(jobs)}, 202)
        if asked.endswith("/result"):
            return result or said({"items": ROWS})
        found = next(states)
        if isinstance(found, Answer):
            return found
        return said({"state": found, "id": int(asked.split("/")[2])})

    return serve(answer)


def asked(server: Server) -> list[str]:
    return [f"{request.method} {request}" for request in server.asked]


def test_a_job_is_submitted_waited_for_and_downloaded(serve: Serve, slept: list[float]) -> None:
    server = api(serve, iter(["queued", "running", "done"]))
    mark, result = read(server.url, exports())
    assert rows([result]) == ROWS
    assert asked(server) == ["POST /jobs", *["GET /jobs/7"] * 3, "GET /jobs/7/result"]
    assert sum(slept) == 3 * STATES.interval_seconds
    assert (mark.is_mark, mark.is_empty, result.resume) == (True, True, None)
    assert mark.resume is not None
    assert mark.resume.url == f"{server.url}jobs/7"


def test_a_job_may_stand_in_a_location_and_its_status_be_the_result(serve: Serve) -> None:
    polls = iter([Answer(b"", 202), said({"items": ROWS})])

    def answer(asked: Asked) -> Answer:
        return next(polls) if asked == "/status" else said({}, 202, Location="/status")

    assert rows(read(serve(answer).url, exports(Job()))) == ROWS


def test_a_load_goes_on_with_the_job_that_it_submitted(serve: Serve, slept: list[float]) -> None:
    server = api(serve, iter(["running", "done", "done"]))
    mark, _ = read(server.url, exports())
    server.asked.clear()
    slept.clear()
    assert rows(read(server.url, exports(), resume=mark.resume)) == ROWS
    assert asked(server) == ["GET /jobs/7", "GET /jobs/7/result"]
    assert slept == []


@pytest.mark.parametrize("state", ["failed", said({"error": "gone"}, 410)], ids=["failed", "410"])
def test_a_kept_job_that_is_gone_is_submitted_again(serve: Serve, state: Any) -> None:
    server = api(serve, iter(["done", state, "done"]))
    mark, _ = read(server.url, exports())
    server.asked.clear()
    again, result = read(server.url, exports(), resume=mark.resume)
    assert rows([result]) == ROWS
    assert again.resume is not None
    assert again.resume.url == f"{server.url}jobs/8"
    assert asked(server)[:3] == ["GET /jobs/7", "POST /jobs", "GET /jobs/8"]


def test_a_job_that_expires_is_submitted_once_more(serve: Serve) -> None:
    gone = said({"error": "gone"}, 404)
    assert rows(read(api(serve, iter([gone, "done"])).url, exports())) == ROWS
    server = api(serve, iter([gone, gone]))
    with pytest.raises(NotFoundError):
        read(server.url, exports())
    assert asked(server).count("POST /jobs") == 2


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_job_that_fails_is_a_named_error(serve: Serve, state: str) -> None:
    server = api(serve, iter([state]))
    with pytest.raises(JobFailedError, match=f"the job has ended as '{state}'.*submits it again"):
        read(server.url, exports())
    assert asked(server) == ["POST /jobs", "GET /jobs/7"]


def test_no_error_of_a_job_quotes_personal_data(serve: Serve) -> None:
    failed = said({"state": "failed", "name": "Ada Lovelace"})
    with pytest.raises(JobFailedError) as failure:
        read(api(serve, iter([failed])).url, exports(personal={"name": dropped()}))
    assert "Ada" not in f"{failure.value} {failure.value.answer}"


def test_a_job_that_is_not_done_in_time_is_an_error(serve: Serve, slept: list[float]) -> None:
    def always() -> Iterator[str]:
        while True:
            yield "running"

    server = api(serve, always())
    with pytest.raises(UnavailableError, match="goes on with this job"):
        read(server.url, exports(replace(STATES, max_seconds=60)))
    assert 50 < sum(slept) <= 60


def test_a_wait_that_the_api_asks_for_is_kept(serve: Serve, slept: list[float]) -> None:
    waits = said({"state": "running"}, Retry_After="17")
    server = api(serve, iter([waits, "done"]))
    read(server.url, exports())
    assert sum(slept) == STATES.interval_seconds + 17


def test_a_wait_beyond_the_rest_is_not_begun(serve: Serve, slept: list[float]) -> None:
    server = api(serve, iter([said({"state": "running"}, Retry_After="4000")]))
    with pytest.raises(UnavailableError, match="next status is due in 4000 s"):
        read(server.url, exports())
    assert sum(slept) == STATES.interval_seconds


def test_a_status_that_is_away_counts_against_the_wait_for_an_api_that_is_down(
    serve: Serve,
) -> None:
    assert rows(read(api(serve, iter([said({}, 503), "done"])).url, exports())) == ROWS
    server = api(serve, iter([said({}, 503, Retry_After="301")]))
    with pytest.raises(UnavailableError, match="of at most 300 s"):
        read(server.url, exports())


def test_a_submission_is_repeated_only_if_that_is_declared(serve: Serve) -> None:
    url = serve(lambda _: said({}, 503)).url
    with pytest.raises(UnavailableError, match="unless the resource declares is_repeatable"):
        read(url, exports())


def test_waiting_ends_when_the_client_is_closed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = api(serve, iter(["running"]))
    source = Source("shop", server.url, (exports(),))
    client = Client(source)
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        client.close()

    monkeypatch.setattr("flows.extract.client.sleep", nap)
    with pytest.raises(StoppedError):
        client.pause(3600)
    assert naps == [1]


@pytest.mark.parametrize(
    "found",
    [{}, {"id": None}, {"id": {}}, {"id": ".."}, {"id": ""}, []],
    ids=repr,
)
def test_a_submission_without_the_jobs_id_is_an_error(serve: Serve, found: Any) -> None:
    with pytest.raises(BadPayloadError, match="has no 'id' that the job can go on with"):
        read(serve(lambda _: said(found, 202)).url, exports())


def test_an_id_stays_one_segment_of_the_path(serve: Serve) -> None:
    answers = {"/jobs": said({"id": "../a b"}, 202), "/jobs/..%2Fa%20b": said({"items": ROWS})}
    server = serve(lambda asked: answers[asked])
    assert rows(read(server.url, exports(Job("jobs/{id}")))) == ROWS


def test_a_submission_without_a_location_is_an_error(serve: Serve) -> None:
    with pytest.raises(BadPayloadError, match="without a Location"):
        read(serve(lambda _: said({}, 202)).url, exports(Job()))


def test_a_status_without_its_field_is_an_error(serve: Serve) -> None:
    with pytest.raises(BadPayloadError, match="has no 'state'"):
        read(api(serve, iter([said({"id": 7})])).url, exports())


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (Answer(b"<html>Log in</html>", headers={"Content-Type": "text/html"}), "declares csv"),
        (Answer(b'id,n\n1,"x', headers={"Content-Type": "text/csv"}), "not CSV as declared"),
    ],
    ids=["HTML", "cut"],
)
def test_a_result_that_is_none_is_an_error(serve: Serve, result: Answer, message: str) -> None:
    server = api(serve, iter(["done"]), result)
    with pytest.raises(BadPayloadError, match=message):
        rows(read(server.url, exports(records=csv_rows())))


def test_nothing_to_export_is_no_record(serve: Serve) -> None:
    [page] = read(serve(lambda _: Answer(b"", 204, {})).url, exports())
    assert page.is_empty


SIGNATURE = "sIgNaTuRe-0123456789"


@pytest.mark.parametrize("way", ["a link", "a redirect"])
def test_a_host_of_downloads_gets_neither_the_login_nor_the_headers(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "s3cr3t-t0ken")
    storage = serve(lambda _: said({"items": ROWS}))
    link = f"{storage.url}orders?signature={SIGNATURE}"

    def answer(asked: Asked) -> Answer:
        if asked == "/file":
            return said({}, 302, Location=link)
        if asked.method == "POST":
            return said({"id": 7}, 202)
        return said({"state": "done", "url": link if way == "a link" else "/file"})

    host = storage.url.removeprefix("http://").rstrip("/")
    job = replace(STATES, download="{url}", hosts=(host,))
    shop, resource = serve(answer), exports(job, headers={"X-Own": "own"})
    source = Source("shop", shop.url, (resource,), Bearer("shop-token"))
    assert rows(read(shop.url, resource, source=source)) == ROWS
    assert {asked.headers["Authorization"] for asked in shop.asked} == {"Bearer s3cr3t-t0ken"}
    [downloaded] = storage.asked
    assert downloaded.headers["Authorization"] is downloaded.headers["X-Own"] is None
    assert downloaded.headers["Cookie"] is None


def test_an_address_with_a_signature_is_shown_nowhere(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    storage = serve(lambda _: Answer(b"busy", 500))
    link = f"{storage.url}orders?signature={SIGNATURE}"
    shop = api(serve, iter([said({"state": "done", "url": link})]))
    host = storage.url.removeprefix("http://").rstrip("/")
    resource = exports(replace(STATES, download="{url}", hosts=(host,)))
    with pytest.raises(UnavailableError) as failure:
        read(shop.url, resource)
    shown = [caplog.handler.format(record) for record in caplog.records]
    assert storage.asked
    assert SIGNATURE not in "\n".join([*shown, str(failure.value), str(failure.value.answer)])


@pytest.mark.parametrize("link", ["http://localhost:1/x", "http://169.254.169.254/", "file:///x"])
def test_a_download_from_any_other_host_is_refused(serve: Serve, link: str) -> None:
    shop = api(serve, iter([said({"state": "done", "url": link})]))
    with pytest.raises(ConfigurationError):
        read(shop.url, exports(replace(STATES, download="{url}")))


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (lambda: Job(status="state"), "`status` and `done` need each other"),
        (lambda: Job(done=("done",)), "`status` and `done` need each other"),
        (lambda: Job(status="state", done="done"), "write a tuple"),
        (lambda: Job(failed=("failed",)), "`failed` needs a `status`"),
        (lambda: Job(status="s", done=("a",), failed=("a",)), "not in `done`"),
        (lambda: Job(expired=(429,)), "429 never means that a job has expired"),
        (lambda: Job(max_seconds=0), "max_seconds"),
        (lambda: exports(paging=offset()), "neither paging nor max_pages"),
        (lambda: exports(max_pages=1), "neither paging nor max_pages"),
        (
            lambda: Source("shop", "https://api.x.com/v1", (exports(Job(hosts=("api.x.com",))),)),
            "gets the login of source 'shop'",
        ),
    ],
)
def test_jobs_that_would_not_end_or_show_the_login_are_refused(
    declared: Callable[[], Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        declared()
