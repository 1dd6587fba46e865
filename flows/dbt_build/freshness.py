"""Results of `dbt source freshness`: raw tables whose last complete load is too long ago."""

from collections.abc import Iterator, Sequence

from flows.dbt_build.manifests import Json
from flows.dbt_build.node_results import ERROR, WARN, table_of

COMMAND = ("source", "freshness")
# dbt reports this date for tables that were never loaded in full.
_NEVER = "0001-01-01"
_HOUR_SECONDS = 3600


def stale(results: Sequence[Json], is_bad: bool) -> list[str]:
    """The tables past their source's freshness limit: for errors if `is_bad`, or for warnings."""
    wanted = ERROR if is_bad else WARN
    return [", ".join(_describe(result)) for result in results if result["status"] == wanted]


def without_result(manifest: Json, results: Sequence[Json]) -> list[str]:
    """Tables with a freshness limit for which dbt reported nothing."""
    reported = {result["unique_id"] for result in results}
    return [
        f"{source['source_name']}.{source['name']}"
        for unique_id, source in manifest["sources"].items()
        if unique_id not in reported and _has_limits(source)
    ]


def _has_limits(source: Json) -> bool:
    limits = source.get("freshness") or {}
    return any((limits.get(name) or {}).get("count") for name in ("warn_after", "error_after"))


def _describe(result: Json) -> Iterator[str]:
    yield table_of(result["unique_id"])
    if result["max_loaded_at"].startswith(_NEVER):
        yield "never loaded in full"
    else:
        hours = result["max_loaded_at_time_ago_in_s"] / _HOUR_SECONDS
        yield f"last loaded in full {hours:.0f} h ago"
