"""Promises of jobs: what is requested and when, which answers end them, who gets the login."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from flows.errors import (
    BadPayloadError,
    ConfigurationError,
    JobFailedError,
    NotFoundError,
    UnavailableError,
)
from flows.extract.client import Client, StoppedError
from flows.extract.paginators import next_url
from flows.extract.selectors import csv_rows, records_at
from flows.page import HttpRequest
from flows.personal_data import dropped
from flows.source import Job, Resource, Rule, Source
from tests.extract.reading import read, rows
from tests.http_servers import Answer, Asked, Serve, Server

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


SEVERAL = exports(
    Job(
        lambda page: HttpRequest("/status", "POST", body={"job": page.document["id"]}),
        lambda page: page.document["files"],
        "state",
        ("done",),
    ),
    paging=next_url("next"),
)


def paged_api(serve: Serve) -> Server:
    """Asks for the status by a POST; the first of two files has two pages."""
    pages = {
        "/jobs": {"id": 7},
        "/status": {"state": "done", "files": ["/a", "/b"]},
        "/a": {"items": [{"id": 1}, {"id": 2}], "next": "?page=2"},
        "/a?page=2": {"items": [{"id": 3}]},
        "/b": {"items": [{"id": 4}]},
    }
    return serve(lambda asked: said(pages[asked]))


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
    bodies = (
        f" {request.body.decode()}" if request == "/status" else "" for request in server.asked
    )
    return [
        f"{request.method} {request}{body}"
        for request, body in zip(server.asked, bodies, strict=True)
    ]


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


def test_a_result_may_have_several_parts_and_pages(serve: Serve) -> None:
    """They are stored together: no checkpoint lies between them, but for the mark."""
    server = paged_api(serve)
    mark, *pages = read(server.url, SEVERAL)
    assert rows(pages) == [{"id": 1}, {"id": 2}, {"id": 3}, {"id": 4}]
    assert [page.resume for page in pages] == [None] * 3
    assert asked(server) == [
        "POST /jobs", 'POST /status {"job": 7}', "GET /a", "GET /a?page=2", "GET /b",
    ]  # fmt: skip
    server.asked.clear()
    assert rows(read(server.url, SEVERAL, resume=mark.resume)) == rows(pages)
    assert asked(server)[0] == 'POST /status {"job": 7}'
    assert [request.method for request in server.asked].count("GET") == 3


def test_a_result_without_a_file_has_no_records(serve: Serve) -> None:
    none = exports(Job("jobs/{id}", lambda _: [], "state", ("done",)))
    [_, result] = read(api(serve, iter(["done"])).url, none)
    assert (result.is_empty, rows([result])) == (True, [])


def test_a_function_of_a_job_that_fails_is_named(serve: Serve) -> None:
    wrong = exports(Job("jobs/{id}", lambda page: page.document["files"], "state", ("done",)))
    with pytest.raises(ConfigurationError, match=r"orders: its `job\.download` function failed"):
        read(api(serve, iter(["done"])).url, wrong)


@pytest.mark.parametrize("found", [None, "", 5, [], [None]], ids=repr)
def test_a_function_of_a_job_that_finds_no_request_is_named(serve: Serve, found: Any) -> None:
    """An empty URL would be that of the answer itself."""
    job = replace(STATES, poll=lambda page: found)
    with pytest.raises(BadPayloadError, match=r"orders: .*/jobs, a function of .* returned"):
        read(api(serve, iter(["done"])).url, exports(job))


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


def test_a_download_that_has_expired_is_no_empty_result(serve: Serve) -> None:
    """Whatever a rule says of such a status where a list is requested."""
    server = api(serve, iter(["done", "done"]), said({"error": "expired"}, 404))
    with pytest.raises(NotFoundError, match="the job has expired"):
        read(server.url, exports(rules=(Rule("ignore", status=404),)))
    assert asked(server).count("POST /jobs") == 2


def test_a_rule_judges_the_result(serve: Serve) -> None:
    server = api(serve, iter(["done"]), said({"error": "no rows"}, 422))
    _, result = read(server.url, exports(rules=(Rule("ignore", status=422, body="no rows"),)))
    assert result.is_empty


def test_a_rule_retries_a_status(serve: Serve) -> None:
    limited = said({"error": "too many"}, 403)
    server = api(serve, iter([limited, "done"]))
    rules = (Rule("retry", status=403, body="too many"),)
    assert rows(read(server.url, exports(rules=rules))) == ROWS


@pytest.mark.parametrize("status", [204, 202])
def test_a_status_that_says_nothing_yet_is_that_of_a_job_at_work(serve: Serve, status: int) -> None:
    server = api(serve, iter([Answer(b"", status, {}), "done"]))
    assert rows(read(server.url, exports())) == ROWS


def test_a_status_202_that_says_failed_is_that_of_a_failed_job(serve: Serve) -> None:
    with pytest.raises(JobFailedError):
        read(api(serve, iter([said({"state": "failed"}, 202)])).url, exports())


def test_a_done_job_may_be_a_boolean_or_a_number(serve: Serve) -> None:
    for value, text in ((True, "true"), (200, "200")):
        server = api(serve, iter([said({"state": value, "id": 7})]))
        assert rows(read(server.url, exports(replace(STATES, done=(text,))))) == ROWS


def test_a_status_with_the_records_is_decoded_as_declared(serve: Serve) -> None:
    document = {"state": "done", "items": [{"id": 1, "name": "Ã¼ber"}]}
    body = json.dumps(document, ensure_ascii=False).encode("cp1252")
    polled = Answer(body, headers={"Content-Type": "application/json"})
    job, server = replace(STATES, download=""), api(serve, iter([polled]))
    _, result = read(server.url, exports(job, encoding="cp1252"))
    assert [json.loads(bytes(record)) for record in result.found] == document["items"]


@pytest.mark.parametrize("status", [400, 403])
def test_a_kept_job_that_the_api_refuses_is_submitted_again(serve: Serve, status: int) -> None:
    server = api(serve, iter(["done", said({"error": "no"}, status), "done"]))
    mark, _ = read(server.url, exports())
    assert rows(read(server.url, exports(), resume=mark.resume)) == ROWS
    assert asked(server).count("POST /jobs") == 2


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
        (lambda: Job(status="code", done=(200,)), r"200 is no text.*'200'"),  # type: ignore[arg-type]
        (lambda: Job(status="ok", done=(True,)), r"True is no text.*'true'"),  # type: ignore[arg-type]
        (lambda: exports(max_pages=1), "has no max_pages"),
    ],
)
def test_jobs_that_would_not_end_are_refused(declared: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        declared()
