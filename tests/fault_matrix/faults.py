"""The table: the faults of the sample API, and the expected outcome of a load for each.

Faults in the rows themselves are in the tests of moving rows and of changed shapes.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from flows.errors import (
    BadPayloadError,
    BadRequestError,
    ConfigurationError,
    EltError,
    NotFoundError,
    PayloadTooLargeError,
    RefusedLoginError,
)
from tests.fault_matrix.styles import Style

# Between an ordinary page (a thousand bytes or two) and one that is too large.
BODY_LIMIT_BYTES = 100_000
TOO_MANY_BYTES = 1_000_000
# Far above the time of a normal response here, far below that of a slow one.
TIMEOUT_SECONDS = 0.1


@dataclass(frozen=True)
class Goes:
    """Every row and no wait: the response is equivalent to the correct one."""


@dataclass(frozen=True)
class Stops:
    """Believed: there are no rows here, so the load succeeds; the next load reads the rest."""


@dataclass(frozen=True)
class Passes:
    """A retry may succeed: then every row; otherwise the load fails as unavailable.

    Attributes:
        asked_seconds: how long the API asks to wait; None if it does not say.
    """

    says: str
    asked_seconds: int | None = None


@dataclass(frozen=True)
class Ends:
    """This error, at once: a retry would get the same response."""

    kind: type[EltError]
    says: str


Outcome = Goes | Stops | Passes | Ends


@dataclass(frozen=True)
class Fault:
    """One row of the table.

    Attributes:
        fault: the sample API's name of it.
        outcome: in all styles but those named in `but`; there, None for no such fault.
        settings: of the source, so that a test need not wait as long as a user would.
        only: the styles in which it exists; empty for all.
        takes_time: it is slow, so that tests let it strike no more often than needed.
    """

    name: str
    fault: str
    outcome: Outcome
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    but: Mapping[str, Outcome | None] = field(default_factory=dict)
    only: Collection[str] = ()
    takes_time: bool = False

    def __str__(self) -> str:
        """Its name, for the ids of the cases."""
        return self.name

    def outcome_in(self, style: Style) -> Outcome | None:
        """The outcome of a load in a style; None where there is no such fault."""
        if self.only and style.name not in self.only:
            return None
        return self.but.get(style.name, self.outcome)

    def strike(self, times: int = 1, skip: int = 0) -> dict[str, Any]:
        """A plan: it strikes so often, after so many requests that it lets be."""
        return {"fault": self.fault, "times": times, "skip": skip, **self.options}


def _status(code: int, outcome: Outcome, header: str = "") -> Fault:
    options = {"header": header, "seconds": WAIT_SECONDS} if header else {}
    return Fault(f"{code}-{header}" if header else str(code), str(code), outcome, options)


LOST = Passes("the connection failed")
TOO_LATE = Passes("no response in time")
TOO_LARGE = Ends(PayloadTooLargeError, "max_body_bytes")
NOT_JSON = Ends(BadPayloadError, "that are not JSON")
NO_CSV = Ends(BadPayloadError, "is not CSV as declared")
NO_XML = Ends(BadPayloadError, "that can't be read as XML")
NO_ZIP = Ends(BadPayloadError, "that can't be read as a ZIP archive")
OTHER_TYPE = Ends(BadPayloadError, "where the source declares")
OTHER_HOST = Ends(ConfigurationError, "localhost.* is not on the host of source 'sample'")
NO_FILES = Ends(ConfigurationError, "file:///etc/passwd")
NOT_LOCAL = Ends(ConfigurationError, "169.254.169.254")
ENDLESS = Ends(ConfigurationError, "is redirected more than")
NO_REDIRECTED_POST = Ends(ConfigurationError, "answers a POST with a redirect")

REFUSED: Mapping[int, Ends] = {
    400: Ends(BadRequestError, "answered 400 .*Correct the request that source 'sample'"),
    401: Ends(RefusedLoginError, "answered 401 .*Correct the credentials of source 'sample'"),
    403: Ends(RefusedLoginError, "answered 403 .*Correct the credentials of source 'sample'"),
    404: Ends(NotFoundError, "answered 404 .*Correct the base URL or path of source 'sample'"),
    410: Ends(NotFoundError, "answered 410 .*Correct the base URL or path of source 'sample'"),
    413: Ends(BadRequestError, "answered 413 .*Make source 'sample'.* request less at a time"),
    422: Ends(BadRequestError, "answered 422 .*Correct the request that source 'sample'"),
}
RETRYABLE = (408, 425, 429, 500, 502, 503, 504)
# Statuses that report a rate limit.
LIMITED = (403, 429, 503)
WAIT_SECONDS = 7
RETRY_AFTER = ("retry_after", "retry_after_date")
RESETS = ("ratelimit_reset", "x_ratelimit_reset")
# More ways to write them, which are tried with one status.
WRITTEN_OTHERWISE = (
    "retry_after_decimal",
    "retry_after_unit",
    "retry_after_twice",
    "retry_after_iso",
    "retry_after_moment",
    "ratelimit",
    "ratelimit_old",
    "x_rate_limit_reset",
    "x_ratelimit_reset_ms",
)

STATUSES = (
    *(_status(code, ends) for code, ends in REFUSED.items()),
    *(_status(code, Passes(f"answered {code} ")) for code in RETRYABLE),
)
WAITS = (
    *(
        _status(code, Passes(f"answered {code} .*It asks to wait [78] s", WAIT_SECONDS), header)
        for code, header in [
            *product((403, *RETRYABLE), RETRY_AFTER),
            *product(LIMITED, RESETS),
            *product((429,), WRITTEN_OTHERWISE),
        ]
    ),
    *(
        _status(code, Passes(f"answered {code} "), header)
        for code, header in product(sorted({*RETRYABLE} - {*LIMITED}), RESETS)
    ),
    *(
        _status(code, REFUSED[code], header)
        for code, header in product(sorted({*REFUSED} - {403}), (*RETRY_AFTER, *RESETS))
    ),
)
# Bodies of a 403 that means 429, at GitHub and at Google.
LIMIT_BODIES = {
    "github": {"message": "You have exceeded a secondary rate limit."},
    "google": {"error": {"code": 403, "errors": [{"reason": "userRateLimitExceeded"}]}},
}
LIMITS = tuple(
    Fault(f"403-{name}", "answer", Passes("answered 403 "), {"status": 403, "body": body})
    for name, body in LIMIT_BODIES.items()
)
WIRES = (
    Fault("hang_up", "hang_up", LOST),
    Fault("reset_at_once", "reset_at_once", LOST),
    Fault("reset", "reset", LOST),
    Fault("cut", "cut", LOST),
    Fault("cut_chunked", "cut_chunked", LOST),
    Fault("latency", "latency", Goes(), {"seconds": 0.01}),
    Fault("drip", "drip", Goes(), {"seconds": 0.00001}, takes_time=True),
    Fault("drip_headers", "drip_headers", Goes(), {"seconds": 0.00001}, takes_time=True),
    Fault(
        "latency-beyond", "latency", TOO_LATE, {"seconds": 2.0},
        {"read_timeout_seconds": TIMEOUT_SECONDS}, takes_time=True,
    ),
    Fault(
        "drip-beyond", "drip", TOO_LATE, {"seconds": 0.02},
        {"answer_timeout_seconds": TIMEOUT_SECONDS}, takes_time=True,
    ),
    Fault(
        "drip_headers-beyond", "drip_headers", TOO_LATE, {"seconds": 0.02},
        {"answer_timeout_seconds": TIMEOUT_SECONDS}, takes_time=True,
    ),
    *(
        Fault(
            name, fault, TOO_LARGE, {"size_bytes": TOO_MANY_BYTES, **options},
            {"max_body_bytes": BODY_LIMIT_BYTES},
        )
        for name, fault, options in [
            ("huge", "huge", {}),
            ("huge-in_chunks", "huge", {"is_declared": False}),
            ("gzip_bomb", "gzip_bomb", {}),
            ("gzip_bomb-file", "gzip_bomb", {"is_file": True}),
        ]
    ),
)  # fmt: skip
NEITHER_JSON = ("csv", "xml", "zip")
BODIES = (
    Fault("204", "204", Stops()),
    Fault(
        "empty", "empty", NOT_JSON,
        but={"ndjson": Stops(), "csv": Stops(), "xml": NO_XML, "zip": NO_ZIP},
    ),
    Fault("html", "html", OTHER_TYPE),
    Fault(
        "html-as_text", "html", NOT_JSON, {"content_type": "text/plain"},
        but={"csv": NO_CSV, "xml": NO_XML, "zip": NO_ZIP},
    ),
    Fault("html_as_json", "html_as_json", NOT_JSON, but=dict.fromkeys(NEITHER_JSON, OTHER_TYPE)),
    Fault("wrong_type", "wrong_type", Goes()),
    Fault(
        "wrong_type-xml", "wrong_type", OTHER_TYPE, {"content_type": "application/xml"},
        but={"xml": Goes()},
    ),
    Fault(
        "cut_json", "cut_json", NOT_JSON,
        but={"csv": NO_CSV, "gzip": LOST, "xml": NO_XML, "zip": NO_ZIP},
    ),
    Fault(
        "answer", "answer", Ends(BadPayloadError, "errors beside its data.*Correct the request"),
        {"body": {"errors": [{"message": "busy"}], "data": None}},
        # A line of NDJSON, if not a row.
        but={**dict.fromkeys(NEITHER_JSON, OTHER_TYPE), "ndjson": None},
    ),
)  # fmt: skip
LINKED = ("next_url", "next_path", "link_header", "accounts")
WAYS = (
    Fault(
        "redirect", "redirect", Goes(), but=dict.fromkeys(("graphql", "form"), NO_REDIRECTED_POST)
    ),
    Fault("redirect-307", "redirect", Goes(), {"status": 307}),
    Fault("redirect-308", "redirect", Goes(), {"status": 308}),
    Fault(
        "redirect-allowed_host", "redirect", Goes(), {"to": "other_host", "status": 307},
        {"hosts": ("localhost",)},
    ),
    Fault("redirect-other_host", "redirect", OTHER_HOST, {"to": "other_host", "status": 307}),
    Fault("redirect-file", "redirect", NO_FILES, {"to": "file", "status": 307}),
    Fault("redirect-link_local", "redirect", NOT_LOCAL, {"to": "link_local", "status": 307}),
    Fault("redirect-endless", "redirect", ENDLESS, {"to": "endless", "status": 307}),
    Fault("next_link", "next_link", Goes(), {"to": "same_host"}, only=LINKED),
    Fault(
        "next_link-allowed_host", "next_link", Goes(),
        settings={"hosts": ("localhost",)}, only=LINKED,
    ),
    Fault("next_link-other_host", "next_link", OTHER_HOST, only=LINKED),
    Fault("next_link-file", "next_link", NO_FILES, {"to": "file"}, only=LINKED),
    Fault("next_link-link_local", "next_link", NOT_LOCAL, {"to": "link_local"}, only=LINKED),
)  # fmt: skip
FAULTS = (*LIMITS, *WIRES, *BODIES, *WAYS)
