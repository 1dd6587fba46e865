"""Jobs: the catalogue's rows, made on demand. The second status of a job says that it is done."""

from collections.abc import Sequence
from threading import Lock

from tests.fault_api.catalogue import formats
from tests.fault_api.exchange import Answer, Ask, AskError, as_json

# So that nobody waits long for a status.
ASKS_TO_WAIT = {"Retry-After": "0.01"}


class Jobs:
    """The jobs that were submitted, and how often each was asked for its status."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._polls: dict[str, int] = {}
        self._submitted_count = 0

    def answer(self, ask: Ask, path: Sequence[str], rows: formats.Rows) -> Answer:
        """Submit a job, or its status, or its result.

        Raises:
            AskError: when there is no such path or job.
        """
        match path:
            case []:
                return self.submit(ask)
            case ["status"]:
                return self.status(ask, str(ask.arguments.get("id")))
            case [job]:
                return self.status(ask, job)
            case [job, "result"]:
                return self.result(job, rows)
        raise AskError(f"There is nothing at {ask.path}.", 404)

    def submit(self, ask: Ask) -> Answer:
        """Submit another one.

        Raises:
            AskError: when the method is not POST.
        """
        if ask.method != "POST":
            raise AskError("A job is submitted with POST.", 405, {"Allow": "POST"})
        with self._lock:
            self._submitted_count += 1
            job = str(self._submitted_count)
            self._polls[job] = 0
        headers = {"Location": f"/jobs/{job}", **ASKS_TO_WAIT}
        return as_json({"id": int(job), "state": "queued"}, 202, headers)

    def status(self, ask: Ask, job: str) -> Answer:
        """Whether it is done, and where its result is."""
        with self._lock:
            self._polls[job] = count = self._poll_count(job) + 1
        if count < 2:
            return as_json({"id": int(job), "state": "running"}, headers=ASKS_TO_WAIT)
        url = f"{ask.base}/jobs/{job}/result"
        return as_json({"id": int(job), "state": "completed", "result": {"url": url}})

    def result(self, job: str, rows: formats.Rows) -> Answer:
        """The rows in CSV."""
        with self._lock:
            self._poll_count(job)
        return formats.csv_text(rows)

    def _poll_count(self, job: str) -> int:
        if job not in self._polls:
            raise AskError(f"There is no job {job!r}.", 404)
        return self._polls[job]
