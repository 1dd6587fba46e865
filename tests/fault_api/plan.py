"""The plan: which requests get which fault, how often; and the log of what was asked.

Knows the faults' names and options, not what they do.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock
from typing import Any

from tests.fault_api.exchange import Ask, AskError

OWN_FIELDS = {"path", "pattern", "fault", "times", "skip"}


@dataclass
class PlannedFault:
    """A fault for some requests.

    Attributes:
        path: what path and query begin with; or
        pattern: a regular expression found in them.
        times: for how many more of those requests; None for all of them.
        skip: how many of them go well before that; those that an earlier fault takes don't count.
    """

    fault: str
    path: str = ""
    pattern: str = ""
    times: int | None = 1
    skip: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    def is_due(self, target: str) -> bool:
        """Whether it befalls this request; counts the request where it is one of its own."""
        if self.times == 0 or not target.startswith(self.path):
            return False
        if not re.search(self.pattern, target):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True

    def shown(self) -> dict[str, Any]:
        """As it was planned, with the times and skips that are left."""
        own = {name: getattr(self, name) for name in sorted(OWN_FIELDS)}
        return {**own, **self.options}


class Plan:
    """The faults to come and the requests that came; used by all connections at once."""

    def __init__(self, known: Mapping[str, Callable[..., None]]) -> None:
        self._known = known
        self._lock = Lock()
        self._faults: list[PlannedFault] = []
        self._requests: list[dict[str, Any]] = []

    def replace(self, wanted: object) -> None:
        """Forget the faults and the log, and plan these faults.

        Raises:
            AskError: when one of them can't be understood; then nothing changes.
        """
        if not isinstance(wanted, list):
            raise AskError("Faults are planned as a JSON list of objects.")
        faults = [self._parse(fault) for fault in wanted]
        with self._lock:
            self._faults, self._requests = faults, []

    def end(self) -> None:
        """Forget the faults; the log goes on."""
        with self._lock:
            self._faults = []

    def take(self, ask: Ask) -> PlannedFault | None:
        """Log a request; the first planned fault that is due for it, if any."""
        with self._lock:
            due = next((fault for fault in self._faults if fault.is_due(ask.target)), None)
            self._requests.append(_logged(ask, due))
            return due

    def faults(self) -> list[dict[str, Any]]:
        """The planned faults with what is left of them."""
        with self._lock:
            return [fault.shown() for fault in self._faults]

    def requests(self) -> list[dict[str, Any]]:
        """The requests since the plan was made, in the order in which they came."""
        with self._lock:
            return list(self._requests)

    def _parse(self, wanted: object) -> PlannedFault:
        if not isinstance(wanted, dict) or "fault" not in wanted:
            raise AskError(f"{wanted!r} is no fault: it has no field 'fault'.")
        options = {name: value for name, value in wanted.items() if name not in OWN_FIELDS}
        own = {name: value for name, value in wanted.items() if name in OWN_FIELDS}
        fault = PlannedFault(**{**own, "fault": str(wanted["fault"]), "options": options})
        if fault.fault not in self._known:
            raise AskError(f"No fault {fault.fault!r}; known are {', '.join(sorted(self._known))}.")
        _check_counts(fault)
        _check_place(fault)
        _check_options(fault, self._known[fault.fault])
        return fault


def _check_counts(fault: PlannedFault) -> None:
    for name, count in (("times", fault.times), ("skip", fault.skip)):
        is_always = name == "times" and count is None
        if not is_always and (type(count) is not int or count < 0):
            raise AskError(f"{name} is {count!r}; expected a whole number, 0 or more.")


def _check_place(fault: PlannedFault) -> None:
    if not (isinstance(fault.path, str) and isinstance(fault.pattern, str)):
        raise AskError(f"{fault.shown()} needs a text as its path or pattern.")
    if not (fault.path or fault.pattern):
        raise AskError(f"{fault.shown()} is for no request: it needs a path or a pattern.")
    try:
        re.compile(fault.pattern)
    except re.error as error:
        raise AskError(
            f"The pattern {fault.pattern!r} is no regular expression: {error}."
        ) from error


def _check_options(fault: PlannedFault, function: Callable[..., None]) -> None:
    """Options are the function's keywords, of the type of their defaults."""
    known = inspect.signature(function).parameters
    for name, value in fault.options.items():
        if name not in list(known)[1:]:
            raise AskError(f"The fault {fault.fault!r} has no option {name!r}.")
        default = known[name].default
        kinds = (int, float) if type(default) is float else type(default)
        if default is not None and not isinstance(value, kinds):
            raise AskError(f"{name} is {value!r}; expected something like {default!r}.")


def _logged(ask: Ask, due: PlannedFault | None) -> dict[str, Any]:
    return {
        "method": ask.method,
        "path": ask.target,
        "headers": dict(ask.headers),
        "body": ask.body.decode(errors="replace"),
        "received_at": datetime.now(UTC).isoformat(),
        "fault": due.fault if due else None,
    }
