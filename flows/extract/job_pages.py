"""The pages of a job: a mark that it was submitted, and its result.

The mark has the address of the job's status as its resume point, and is committed before anything
else is requested. So a load that is killed goes on with the job that it submitted.
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from time import monotonic
from urllib.parse import quote

from flows.errors import BadPayloadError, EltError, JobFailedError, UnavailableError
from flows.extract import url_policy
from flows.extract.client import Client
from flows.extract.page_fields import value_at
from flows.extract.readable import readable
from flows.extract.retry_after import requested_wait
from flows.extract.selectors import check_errors
from flows.jobs import Job
from flows.page import HttpRequest, Page
from flows.source import Resource

log = logging.getLogger(__name__)

AT_WORK = 202
_FIELD = re.compile(r"\{([^{}]+)\}")
_NO_SEGMENTS = frozenset({"", ".", ".."})


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

    def pages(self, kept_url: str) -> Iterator[tuple[Page, HttpRequest | None]]:
        """The mark of a job with the request for its status; then the result.

        `kept_url` is the status of the job that an earlier load submitted, or empty. If that job
        has failed or expired, another one is submitted; and one more if this one expires.

        Raises:
            JobFailedError: this load's own job has failed.
            BadPayloadError: an answer lacks a field that the job needs.
            UnavailableError: the job was not done in time; the next load goes on waiting for it.
            EltError: as `Client.get` does.
        """
        if kept_url:
            kept = self._admitted(kept_url)
            result = self._awaited(kept, 0, is_kept=True)
            if result is not None:
                yield result, None
                return
        for is_last in (False, True):
            answer = self._submitted()
            if answer.is_empty:
                yield answer, None
                return
            poll = self._poll_of(answer)
            mark = Page(b"", answer.url, request=answer.request, is_empty=True, is_mark=True)
            yield mark, poll
            result = self._awaited(poll, self._wait_after(answer), is_last=is_last)
            if result is not None:
                yield result, None
                return

    def _submitted(self) -> Page:
        is_repeatable = self._start.method == "GET" or self._resource.is_repeatable
        return self._client.get(self._start, self._rules, is_repeatable)

    def _awaited(
        self, poll: HttpRequest, seconds: float, is_kept: bool = False, is_last: bool = False
    ) -> Page | None:
        """The result of a job; None if it has to be submitted again.

        That is, if the job has expired and is not the last one that is tried, or if one that was
        kept has failed.
        """
        try:
            return self._result(self._done(poll, seconds))
        except EltError as error:
            has_failed = isinstance(error, JobFailedError)
            has_expired = error.answer is not None and error.answer.status in self._job.expired
            if not (has_failed and is_kept) and (is_last or not has_expired):
                raise
            log.warning("%s: the job is submitted again: %s", self._resource.name, error)
            return None

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
            answer = self._client.get(poll)
            if self._is_done(answer):
                return answer
            waited_seconds += seconds + monotonic() - began_at
            seconds = self._wait_after(answer)

    def _is_done(self, answer: Page) -> bool:
        if answer.status == AT_WORK:
            return False
        if not self._job.status or answer.is_empty:
            return True
        status = str(self._field(answer, self._job.status))
        if status in self._job.failed:
            raise JobFailedError(
                f"{answer.url}: the job has ended as {status!r}: {answer.start_of()!r}. Correct "
                "the request, or ask the API's owner; the next load submits it again."
            )
        return status in self._job.done

    def _wait_after(self, answer: Page) -> float:
        asked = requested_wait(answer.headers, is_limited=False)
        return (asked.seconds if asked else 0) or self._job.interval_seconds

    def _result(self, answer: Page) -> Page:
        """The page with the records."""
        if self._job.download and not answer.is_empty:
            request = self._request(self._job.download, answer)
            answer = self._client.get(request, self._rules)
        answer.find = self._resource.records
        if not answer.is_empty:
            answer.body = readable(answer, self._resource, self._resource.records)
            check_errors(answer)
        return answer

    def _poll_of(self, answer: Page) -> HttpRequest:
        if self._job.poll:
            return self._request(self._job.poll, answer)
        location = answer.headers.get("Location")
        if not location:
            raise BadPayloadError(
                f"{answer.url} answered {answer.status} without a Location, so the job's status "
                "is unknown. Declare where it is, e.g. Job(poll='exports/{id}'), or ask the API's "
                "owner."
            )
        return self._admitted(url_policy.resolve_link(answer.url, url_policy.from_header(location)))

    def _request(self, place: str, answer: Page) -> HttpRequest:
        """The request to a place that is declared by fields of an answer."""
        if found := _FIELD.fullmatch(place):
            link = str(self._field(answer, found[1]))
            return self._admitted(url_policy.resolve_link(answer.url, link))
        path = _FIELD.sub(lambda found: self._segment(answer, found[1]), place)
        return self._admitted(f"{self._base_url.rstrip('/')}/{path.lstrip('/')}")

    def _admitted(self, url: str) -> HttpRequest:
        job, start = self._job, self._start
        request = HttpRequest(url, headers=start.headers, hides_answer=start.hides_answer)
        return self._client.admit(replace(request, public_hosts=job.hosts))

    def _segment(self, answer: Page, field: str) -> str:
        text = str(self._field(answer, field))
        if text in _NO_SEGMENTS:
            raise self._lacks(answer, field)
        return quote(text, safe="")

    def _field(self, answer: Page, field: str) -> object:
        found = value_at(answer, field)
        if found is None or isinstance(found, dict | list):
            raise self._lacks(answer, field)
        return found

    def _lacks(self, answer: Page, field: str) -> BadPayloadError:
        return BadPayloadError(
            f"{answer.url} has no {field!r} that the job can go on with; the answer begins "
            f"{answer.start_of()!r}. Correct the resource's `job`, or ask the API's owner."
        )
