"""How dbt's nodes ended: what the statuses and ids in dbt's events and artifacts mean."""

import re
from collections import Counter
from collections.abc import Iterable

from flows.dbt_build.manifests import Json

# The statuses of dbt.
SUCCESS, PASS, NO_OP, WARN = "success", "pass", "no-op", "warn"
FAIL, ERROR, RUNTIME_ERROR, SKIPPED = "fail", "error", "runtime error", "skipped"
# Some batches of a microbatch model failed.
PARTIAL_SUCCESS = "partial success"
_HASH = re.compile(r"\.[0-9a-f]{10}$")
_DONE = (SUCCESS, PASS, NO_OP, WARN)

# The outcomes that people are shown.
PASSED, WARNED, FAILED = "passed", "warned", "failed"
_OUTCOMES = {
    SUCCESS: PASSED,
    PASS: PASSED,
    WARN: WARNED,
    ERROR: FAILED,
    FAIL: FAILED,
    RUNTIME_ERROR: FAILED,
    PARTIAL_SUCCESS: FAILED,
    SKIPPED: SKIPPED,
    NO_OP: SKIPPED,
}


def outcome_of(status: str) -> str:
    """The outcome that a status means; a status without one is returned as it is."""
    return _OUTCOMES.get(status, status)


def is_done(result: Json) -> bool:
    """Whether the node needs no further build: it neither failed nor was skipped."""
    return result["status"] in _DONE


def done(results: Iterable[Json]) -> set[str]:
    """The ids of the nodes that neither failed nor were skipped."""
    return {result["unique_id"] for result in results if is_done(result)}


def counted(results: Iterable[Json]) -> str:
    """The number of nodes by outcome: `3 passed, 0 warned, …`."""
    counts = Counter(outcome_of(result["status"]) for result in results)
    outcomes = dict.fromkeys(_OUTCOMES.values())
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in outcomes)


def kind_of(unique_id: str) -> str:
    """`model` of `model.warehouse.fct_orders`."""
    return unique_id.split(".")[0]


def name_of(unique_id: str) -> str:
    """`fct_orders` of `model.warehouse.fct_orders`; of a test, the name without its hash.

    Of a unit test, the name of its model.
    """
    kind, _, name = unique_id.split(".", 2)
    if kind == "unit_test":
        return name.rpartition(".")[0]
    return _HASH.sub("", name) if kind == "test" else name


def table_of(unique_id: str) -> str:
    """`shop.orders` of `source.warehouse.shop.orders`."""
    return unique_id.split(".", 2)[2]


def is_test(unique_id: str) -> bool:
    """Whether the node is a data test or a unit test."""
    return kind_of(unique_id) in ("test", "unit_test")
