"""What `dbt source freshness` found: raw tables whose last complete load is too long ago."""

from collections.abc import Iterator, Sequence

from flows.dbt_build.manifests import Json

COMMAND = ("source", "freshness")
RESULTS = "sources.json"
# The ledger has no time for a table that was never loaded in full; dbt then takes this one.
_NEVER = "0001-01-01"
_HOUR_SECONDS = 3600


def stale(results: Sequence[Json], is_bad: bool) -> list[str]:
    """The tables beyond a limit of their source's YAML: that of an error, or of a warning alone."""
    wanted = "error" if is_bad else "warn"
    return [", ".join(_said(result)) for result in results if result["status"] == wanted]


def without_result(manifest: Json, results: Sequence[Json]) -> list[str]:
    """The tables that have limits and no result: dbt leaves out those that it could not ask for."""
    told = {result["unique_id"] for result in results}
    return [
        f"{source['source_name']}.{source['name']}"
        for unique_id, source in manifest["sources"].items()
        if unique_id not in told and _has_limits(source)
    ]


def _has_limits(source: Json) -> bool:
    limits = source.get("freshness") or {}
    return any((limits.get(name) or {}).get("count") for name in ("warn_after", "error_after"))


def _said(result: Json) -> Iterator[str]:
    _, _, source, table = result["unique_id"].split(".", 3)
    yield f"{source}.{table}"
    if result["max_loaded_at"].startswith(_NEVER):
        yield "never loaded in full"
    else:
        hours = result["max_loaded_at_time_ago_in_s"] / _HOUR_SECONDS
        yield f"last loaded in full {hours:.0f} h ago"
