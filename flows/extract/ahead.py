"""Requests that can be foreseen, sent before their turn by threads.

Reading determines each request from the page before it, in order. It may then find that the page is
already there. A foreseen request that reading never asks for has no effect, not even by its error.
Knows nothing of paging.
"""

import contextvars
from collections import deque
from collections.abc import Iterable, Iterator
from threading import Thread
from time import monotonic

from flows.extract.client import Client
from flows.page import HttpRequest, Page
from flows.source import Resource

# No request is sent ahead while the bodies of more than this wait to be read.
WAITING_BYTES = 32 << 20
# A first page of a slice that has waited longer is requested again: tokens on it may have expired.
WAITING_SECONDS = 60
THREAD_NAME = "fetch-ahead"


class Ahead:
    """The pages of one partition, up to `concurrency` of them fetched before their turn.

    Only the reading thread calls it.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        concurrency: int,
        later: Iterable[HttpRequest] = (),
    ) -> None:
        """`later` are the first requests of the slices after the first one."""
        self._client = client
        self._resource = resource
        self._concurrency = concurrency
        self._later = deque(later)
        self._foreseen: Iterator[HttpRequest] = iter(())
        self._pages: deque[_Fetch] = deque()
        self._starts: deque[_Fetch] = deque()
        self._idle: list[Client] = []
        self._asked_pages = 0
        self._is_single_page = False
        self._is_refuted = False
        self._foresees_slices = False

    def first(self, request: HttpRequest, is_start: bool = True) -> Page:
        """The first page of the next slice; or the page in it where reading resumes.

        The first pages of the slices after it are foreseen if the slice before it was a single
        page: otherwise they would wait while this slice is read.
        """
        if self._asked_pages:
            self._later.popleft()
            self._foresees_slices = self._resource.paging is None or self._is_single_page
        self._is_single_page = is_start
        self._forget_pages()
        self._is_refuted = False
        if self._starts and self._starts[0].is_older_than(WAITING_SECONDS):
            self._starts.popleft().drop()
            return self._get(request, deque(), is_start)
        return self._get(request, self._starts, is_start)

    def following(self, request: HttpRequest, foreseen: Iterator[HttpRequest]) -> Page:
        """A page that the one before it led to.

        `foreseen` are the requests expected from this one on. Once they were wrong in a slice, it
        is read request by request.
        """
        self._foresees_slices = self._is_single_page = False
        if self._pages and self._pages[0].request != request:
            self._forget_pages()
            self._is_refuted = True
        elif not self._pages and self._concurrency > 1 and not self._is_refuted:
            expected = next(foreseen, request)
            self._is_refuted = expected != request
            self._foreseen = iter(()) if self._is_refuted else foreseen
        return self._get(request, self._pages)

    def apart(self, request: HttpRequest) -> Page:
        """A page that is not one of those to be read; waits until no request is under way."""
        for fetch in (*self._pages, *self._starts):
            fetch.join()
        return _get(self._client, self._resource, request)

    def close(self) -> None:
        """Send nothing more; nobody waits for requests that are under way."""
        self._forget_pages()
        while self._starts:
            self._starts.popleft().drop()
        while self._idle:
            self._idle.pop().close()

    def _get(self, request: HttpRequest, fetches: "deque[_Fetch]", is_start: bool = False) -> Page:
        is_there = bool(fetches) and fetches[0].request == request
        fetch = fetches.popleft() if is_there else None
        self._asked_pages += 1
        self._send_ahead(self._concurrency - 1)
        own = (self._client, self._resource, request, is_start)
        page = self._take(fetch) if fetch else _get(*own)
        self._send_ahead(self._concurrency)
        return page

    def _take(self, fetch: "_Fetch") -> Page:
        """The page or the error of a thread.

        Threads wait at the same time, so the longest wait counts, not their sum.
        """
        fetch.join()
        self._idle.append(fetch.client)
        self._client.waited_seconds = max(self._client.waited_seconds, fetch.client.waited_seconds)
        if fetch.page is None:
            raise fetch.error or AssertionError("a thread ended without a page")
        return fetch.page

    def _send_ahead(self, most: int) -> None:
        """Send foreseen requests until so many are under way or wait to be read."""
        if self._concurrency == 1:
            return
        if self._resource.max_pages is not None:
            most = min(most, self._resource.max_pages - self._asked_pages)
        while len(self._pages) + len(self._starts) < most and not self._is_full():
            request, fetches = next(self._foreseen, None), self._pages
            if request is None and self._foresees_slices and len(self._starts) < len(self._later):
                request, fetches = self._later[len(self._starts)], self._starts
            if request is None or not self._is_repeatable(request):
                return
            fetches.append(self._fetch(request, fetches is self._starts))

    def _is_repeatable(self, request: HttpRequest) -> bool:
        """Whether it may be sent in vain, and once more."""
        return request.method == "GET" or self._resource.is_repeatable

    def _is_full(self) -> bool:
        fetches = (*self._pages, *self._starts)
        return sum(fetch.size_bytes for fetch in fetches) > WAITING_BYTES

    def _fetch(self, request: HttpRequest, is_start: bool) -> "_Fetch":
        client = self._idle.pop() if self._idle else self._client.sibling()
        client.waited_seconds = self._client.waited_seconds
        client.meter = self._client.meter
        return _Fetch(client, self._resource, request, is_start)

    def _forget_pages(self) -> None:
        self._foreseen = iter(())
        while self._pages:
            self._pages.popleft().drop()


class _Fetch:
    """A thread that fetches one page.

    Attributes:
        page: None while it is under way, and where it failed.
    """

    def __init__(
        self, client: Client, resource: Resource, request: HttpRequest, is_start: bool
    ) -> None:
        self.client = client
        self.request = request
        self.page: Page | None = None
        self.error: BaseException | None = None
        self._resource = resource
        self._is_start = is_start
        self._ended_at: float | None = None
        self._is_dropped = False
        run = contextvars.copy_context().run
        self._thread = Thread(None, run, THREAD_NAME, (self._run,), daemon=True)
        self._thread.start()

    @property
    def size_bytes(self) -> int:
        """Of its body; 0 while it is under way."""
        return len(self.page.body) if self.page else 0

    def is_older_than(self, seconds: float) -> bool:
        """Whether it ended so long ago."""
        return self._ended_at is not None and monotonic() - self._ended_at > seconds

    def join(self) -> None:
        self._thread.join()

    def drop(self) -> None:
        """Let the thread send nothing more, and close its connections when it ends."""
        self._is_dropped = True
        self.client.stop()
        if self._ended_at is not None:
            self.client.close()

    def _run(self) -> None:
        try:
            self.page = _get(self.client, self._resource, self.request, self._is_start)
        except BaseException as error:
            self.error = error
        self._ended_at = monotonic()
        # Whichever of this and `drop` is later closes.
        if self._is_dropped:
            self.client.close()


def _get(client: Client, resource: Resource, request: HttpRequest, is_start: bool = False) -> Page:
    """One page; the first one of a slice is not the end after its last one.

    Where a load replaces the rows, a later page can't be ignored: the rest would be deleted.
    """
    is_known_repeatable = "GET" in (request.method, resource.method) or resource.is_repeatable
    is_rest_of_list = resource.writes == "replace" and not is_start
    void = {"end"} if is_start else {"ignore"} if is_rest_of_list else set()
    rules = [rule for rule in resource.rules if rule.then not in void]
    return client.get(request, rules, is_known_repeatable)
