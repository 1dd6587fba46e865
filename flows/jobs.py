"""A job of an API that makes a resource's records: submitted, asked for its status, downloaded."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flows.errors import ConfigurationError
from flows.limits import check_expired, check_hosts, check_positive
from flows.page import HttpRequest, Page


@dataclass(frozen=True)
class Job:
    """The resource's request submits a job, whose result is its records.

    In `poll` and `download`, `{…}` is a field of the answer before it; dots name a nested field. A
    text that is nothing but such a field is an address that the API sent. Either may also be a
    function of that answer that returns the next request, or only its URL.

    Attributes:
        poll: where the job's status is: a path such as `exports/{id}`, or `{links.self}`. By
            default, the address in the header `Location` of the answer to the submission.
        download: where the result is, by fields of the job's status: `exports/{id}/result` or
            `{result_url}`. By default, the answer that says that the job is done is the result. A
            function may return a list, of which all are read in their order.
        status: the field of the job's status; by default, status 202 says that it is at work.
        done: the values of `status` of a job that has a result, as text: `("true",)`.
        failed: those of a job that will have none. With any other value, the job is at work.
        expired: with these HTTP statuses the API says that it has forgotten the job.
        hosts: other hosts that a download may lead to, e.g. `exports.s3.amazonaws.com`. They get
            neither the login nor the resource's headers.
        interval_seconds: how long to wait before asking for the status again, unless the API says
            so itself (`Retry-After`).
        max_seconds: how long one load waits for the job; the next one goes on waiting for it.
    """

    poll: str | Callable[[Page], HttpRequest | str] = ""
    download: str | Callable[[Page], HttpRequest | str | Sequence[HttpRequest | str]] = ""
    status: str = ""
    done: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    expired: tuple[int, ...] = (404, 410)
    hosts: tuple[str, ...] = ()
    interval_seconds: float = 5
    max_seconds: float = 3600

    def __post_init__(self) -> None:
        """Refuse a job that would never be done, or whose status has two meanings."""
        for name in ("done", "failed", "hosts"):
            _check_texts(name, getattr(self, name))
        check_hosts("Job", self.hosts)
        if bool(self.status) != bool(self.done):
            raise ConfigurationError(
                "Job: `status` and `done` need each other: name the field, and its values once the "
                'job has a result, e.g. status="state", done=("completed",).'
            )
        if (self.failed and not self.status) or {*self.failed} & {*self.done}:
            raise ConfigurationError(
                "Job: `failed` needs a `status`, and values that are not in `done`."
            )
        check_expired("Job", self.expired, "a job has expired")
        limits = {"interval_seconds": self.interval_seconds, "max_seconds": self.max_seconds}
        check_positive("Job", 0, **limits)


def _check_texts(name: str, value: Any) -> None:
    if isinstance(value, str):
        raise ConfigurationError(f"Job({name}={value!r}): write a tuple, ({value!r},).")
    for each in value:
        if not isinstance(each, str):
            raise ConfigurationError(
                f"Job({name}={value!r}): {each!r} is no text. Write it as the API does in JSON, "
                f"{json.dumps(each)!r}."
            )
