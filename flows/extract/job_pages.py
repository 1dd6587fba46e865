"""The pages of a job: a mark that it was submitted, and the parts of its result.

The mark has the address of the job's status as its resume point, and is committed before anything
else is requested. So a load that is killed goes on with the job that it submitted.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any
from urllib.parse import quote

from flows.errors import (
    Answer,
    BadPayloadError,
    EltError,
    JobFailedError,
    NotFoundError,
    UnavailableError,
)
from flows.extract import url_policy
from flows.extract.client import Client
from flows.extract.first_request import NO_SEGMENTS, below
from flows.extract.page_fields import as_text, value_at
from flows.extract.readable import make_readable
from flows.extract.retry_after import requested_wait
from flows.extract.selectors import check_errors
from flows.jobs import Job
from flows.page import HttpRequest, Page
from flows.redaction import without_queries
from flows.source import Resource, Rule

log = logging.getLogger(__name__)

AT_WORK = 202
# With a declared `status`, they may lack it as long as the job is at work; 204 has no content.
_SAYING_LITTLE = (AT_WORK, 204)
# Rules for requests for a status: without records, a job would be done before it has begun.
_OF_STATUS = ("retry", "fail", "accept")
_Result = tuple[Page, Sequence[HttpRequest]]
_FIELD = re.compile(r"\{([^{}]+)\}")


class JobReader:
    """Reads one slice of a resource that a job makes."""

    def __init__(
        self, client: Client, base_url: str, resource: Resource, job: Job, start: HttpRequest
    ) -> None:
        """`start` submits a job."""
        self._client = client
        self._base_url = base_url
        self._resource = resource
        self._job = job
        self._start = start
        self._rules = [rule for rule in resource.rules if rule.then != "end"]
        self._status_rules = [rule for rule in self._rules if rule.then in _OF_STATUS]

    def pages(self, kept: HttpRequest | None) -> Iterator[tuple[Page, HttpRequest | None]]:
        """The mark of a job, then the parts of its result, each with the request that follows.

        `kept` requests the status of the job that an earlier load submitted. If the API refuses
        that job, another one is submitted; and one more if this one expires.

        Raises:
            JobFailedError: this load's own job has failed.
            BadPayloadError: an answer lacks a field that the job needs.
            UnavailableError: the job was not done in time; the next load goes on waiting for it.
            EltError: as `Client.get` does.
        """
        if kept is not None:
            result = self._kept(kept)
            if result is not None:
                yield from self._parts(*result)
                return
        for is_last in (False, True):
            answer = self._submitted()
            if answer.is_empty:
                yield answer, None
                return
            poll = self._poll_of(answer)
            mark = Page(b"", answer.url, request=answer.request, is_empty=True, is_mark=True)
            yield mark, poll
            result = self._awaited(poll, self._wait_after(answer), is_last)
            if result is not None:
                yield from self._parts(*result)
                return

    def _parts(
        self, first: Page, later: Sequence[HttpRequest]
    ) -> Iterator[tuple[Page, HttpRequest | None]]:
        """The parts of a result; each is requested when the one before it has been read.

        Of several, a status 204 is one without records, but one that is ignored is missing.
        """
        part = first
        for request in (*later, None):
            is_ignored = part.is_empty and not part.is_last and part.status != 204
            part.is_cut = is_ignored and bool(later)
            yield part, request
            if request is not None:
                part = self._read(self._get(request, self._rules))

    def _submitted(self) -> Page:
        is_repeatable = self._start.method == "GET" or self._resource.is_repeatable
        return self._client.get(self._start, self._rules, is_repeatable)

    def _kept(self, poll: HttpRequest) -> _Result | None:
        """The result of an earlier load's job; None if the API refuses it, whatever the reason.

        Nothing of that job is stored, so another one stores nothing twice.
        """
        try:
            return self._result(self._done(self._admitted(poll), 0))
        except EltError as error:
            if isinstance(error, UnavailableError) and not self._has_expired(error):
                raise
            self._warn(error)
            return None

    def _awaited(self, poll: HttpRequest, seconds: float, is_last: bool) -> _Result | None:
        """The result of a job; None if it has expired and another one may be submitted."""
        try:
            return self._result(self._done(poll, seconds))
        except EltError as error:
            if is_last or not self._has_expired(error):
                raise
            self._warn(error)
            return None

    def _has_expired(self, error: EltError) -> bool:
        return error.answer is not None and error.answer.status in self._job.expired

    def _warn(self, error: EltError) -> None:
        log.warning("%s: the job is submitted again: %s", self._resource.name, error)

    def _get(self, request: HttpRequest, rules: Sequence[Rule]) -> Page:
        """An answer of a job; that it has expired is an error, whatever the rules say."""
        answer = self._client.get(request, rules)
        if answer.status in self._job.expired:
            raise NotFoundError(
                f"{answer.url} answered {answer.status}: the job has expired. Run the load again.",
                Answer(answer.url, answer.status, _start_of(answer), 1),
            )
        return answer

    def _done(self, poll: HttpRequest, seconds: float) -> Page:
        """The answer which says that the job is done; waits so many seconds before the first."""
        waited_seconds = 0.0
        while True:
            if waited_seconds + seconds > self._job.max_seconds:
                raise UnavailableError(
                    f"{poll.url}: the job is still at work after {waited_seconds:.0f} s, and its "
                    f"next status is due in {seconds:.0f} s; a load waits at most "
                    f"{self._job.max_seconds:.0f} s (its max_seconds). Run it again later: it goes "
                    "on with this job."
                )
            self._client.pause(seconds)
            began_at = monotonic()
            answer = self._get(poll, self._status_rules)
            if self._is_done(answer):
                return answer
            waited_seconds += seconds + monotonic() - began_at
            seconds = self._wait_after(answer)

    def _is_done(self, answer: Page) -> bool:
        if not self._job.status:
            return answer.status != AT_WORK
        if answer.status in _SAYING_LITTLE and self._says_nothing(answer):
            return False
        status = as_text(self._field(answer, self._job.status))
        if status in self._job.failed:
            raise JobFailedError(
                f"{answer.url}: the job has ended as {status!r}: {_start_of(answer)!r}. Correct "
                "the request, or ask the API's owner; the next load submits it again."
            )
        return status in self._job.done

    def _says_nothing(self, answer: Page) -> bool:
        return answer.members is None or value_at(answer, self._job.status) is None

    def _wait_after(self, answer: Page) -> float:
        asked = requested_wait(answer.headers, is_limited=False)
        return (asked.seconds if asked else 0) or self._job.interval_seconds

    def _result(self, answer: Page) -> _Result:
        """The first part of the result, and the requests for the others."""
        if not self._job.download or answer.is_empty:
            return self._read(answer), ()
        requests = self._requests(self._job.download, answer)
        if not requests:
            return Page(b"", answer.url, request=answer.request, is_empty=True), ()
        return self._read(self._get(requests[0], self._rules)), requests[1:]

    def _read(self, part: Page) -> Page:
        """A part with its records; its paging, if it has one, makes it readable itself."""
        part.find = self._resource.records
        if not part.is_empty and self._resource.paging is None:
            make_readable(part, self._resource, self._resource.records)
            check_errors(part)
        return part

    def _poll_of(self, answer: Page) -> HttpRequest:
        if self._job.poll:
            found = self._requests(self._job.poll, answer)
            if len(found) != 1:
                raise self._finds_none(answer, found)
            return found[0]
        location = answer.headers.get("Location")
        if not location:
            raise BadPayloadError(
                f"{answer.url} answered {answer.status} without a Location, so the job's status "
                "is unknown. Declare where it is, e.g. Job(poll='exports/{id}'), or ask the API's "
                "owner."
            )
        return self._linked(answer, url_policy.from_header(location))

    def _requests(self, place: Any, answer: Page) -> list[HttpRequest]:
        """The requests that a function returns, or the one to a place named by fields."""
        if callable(place):
            found = place(answer)
            several = found if isinstance(found, list | tuple) else [found]
            for each in several:
                if not each or not isinstance(each, str | HttpRequest):
                    raise self._finds_none(answer, each)
            return [self._linked(answer, each) for each in several]
        if found := _FIELD.fullmatch(place):
            return [self._linked(answer, as_text(self._field(answer, found[1])))]
        path = _FIELD.sub(lambda found: self._segment(answer, found[1]), place)
        return [self._admitted(HttpRequest(below(self._base_url, path)))]

    def _linked(self, answer: Page, found: HttpRequest | str) -> HttpRequest:
        request = HttpRequest(found) if isinstance(found, str) else found
        return self._admitted(
            replace(request, url=url_policy.resolve_link(answer.url, request.url))
        )

    def _admitted(self, request: HttpRequest) -> HttpRequest:
        start = self._start
        return self._client.admit(
            replace(
                request,
                headers=request.headers or start.headers,
                sends=start.sends,
                hides_answer=start.hides_answer,
                public_hosts=self._job.hosts,
            )
        )

    def _segment(self, answer: Page, field: str) -> str:
        text = as_text(self._field(answer, field))
        if text in NO_SEGMENTS:
            raise self._lacks(answer, field)
        return quote(text, safe="")

    def _field(self, answer: Page, field: str) -> object:
        found = value_at(answer, field)
        if found is None or isinstance(found, dict | list):
            raise self._lacks(answer, field)
        return found

    def _finds_none(self, answer: Page, found: object) -> BadPayloadError:
        return BadPayloadError(
            f"{self._resource.name}: for {answer.url}, a function of the resource's `job` returned "
            f"{found if found is None else repr(type(found).__name__)}, where `poll` needs a URL "
            "or an HttpRequest, and `download` may have a list of them. Correct it, or ask the "
            f"API's owner; the answer begins {_start_of(answer)!r}."
        )

    def _lacks(self, answer: Page, field: str) -> BadPayloadError:
        return BadPayloadError(
            f"{answer.url} has no {field!r} that the job can go on with; the answer begins "
            f"{_start_of(answer)!r}. Correct the resource's `job`, or ask the API's owner."
        )


def _start_of(answer: Page) -> str:
    """The start of an answer, for an error: without what may sign an address."""
    return without_queries(answer.start_of())
