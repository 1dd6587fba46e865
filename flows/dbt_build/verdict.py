"""Whether a build succeeded: the summary of its results, and the errors that name what failed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flows.dbt_build import freshness
from flows.dbt_build.dbt_project import AGES, MANIFEST, DbtProject, ended_early
from flows.dbt_build.manifests import Json
from flows.dbt_build.node_results import (
    ERROR,
    FAILED,
    counted,
    is_done,
    kind_of,
    name_of,
    outcome_of,
)
from flows.errors import BuildError, EltError, UnavailableError
from flows.postgres.errors import is_transient_text

SHOWN_FAILURES = 10


@dataclass(frozen=True)
class Summary:
    """What a build did, for people.

    Attributes:
        reason: why this was built.
        results: the results in dbt's run_results.json.
        failing_rows: the first rows of failed tests, by the node's id.
        ages: the results in dbt's sources.json, if freshness was checked.
        left_over: published relations whose models have left the project.
    """

    reason: str
    results: Sequence[Json]
    failing_rows: Mapping[str, Sequence[str]]
    ages: Sequence[Json]
    left_over: Sequence[str]


def judge(summary: Summary) -> None:
    """Check that all nodes were built and passed.

    Raises:
        BuildError: when a node failed or was skipped.
        UnavailableError: the same, if Postgres was unavailable.
    """
    if not all(map(is_done, summary.results)):
        raise _failure(summary)


def _failure(summary: Summary) -> EltError:
    errors = [str(node["message"]) for node in summary.results if node["status"] == ERROR]
    kind = UnavailableError if any(map(is_transient_text, errors)) else BuildError
    complaints = "".join(f"\n  {complaint}" for complaint in _complaints(summary))
    return kind(
        f"dbt nodes: {counted(summary.results)}. Failed:{complaints}"
        "\nNothing was published: readers still see the previous data. Fix the model or its "
        "data, then run this again."
    )


def _complaints(summary: Summary) -> list[str]:
    """Messages of dbt for the first failed nodes, each with one failing row of a test."""
    bad = [node for node in summary.results if outcome_of(node["status"]) == FAILED]
    return [
        ", ".join([describe(node), *summary.failing_rows.get(node["unique_id"], ())[:1]])
        for node in bad[:SHOWN_FAILURES]
    ]


def describe(result: Json) -> str:
    """A node and dbt's message: `test unique_orders_id: Got 1 result, …`."""
    unique_id, message = result["unique_id"], result["message"] or ""
    return f"{kind_of(unique_id)} {name_of(unique_id)}: {' '.join(message.split())}"


def judge_ages(project: DbtProject, errors: Sequence[str]) -> None:
    """Check that dbt found every raw table to be fresh enough.

    Raises:
        BuildError: when a raw table is stale, or dbt did not check its age.
        UnavailableError: when dbt did not check it because Postgres was unavailable.
    """
    ages, manifest = project.read(AGES), project.read(MANIFEST)
    if ages is None or manifest is None:
        raise ended_early("checked the age of the raw tables", errors)
    if unchecked := freshness.without_result(manifest, ages["results"]):
        raise ended_early(f"checked the age of {', '.join(unchecked)}", errors)
    if stale := freshness.stale(ages["results"], is_bad=True):
        raise BuildError(
            "Published everything that could be built, but raw tables are stale: "
            f"{'; '.join(stale)}. Check their loads; the limits are in dbt_project.yml and in the "
            "sources' YAML."
        )
