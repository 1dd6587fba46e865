"""The sources, found by listing this package: one module per API, each with a `SOURCE`."""

import logging
import os
import re
from dataclasses import replace
from importlib import import_module
from keyword import iskeyword
from pkgutil import iter_modules

from flows.errors import ConfigurationError
from flows.source import Source

log = logging.getLogger(__name__)

LONGEST_NAME = 59  # raw_<name> fits the 63 bytes of a Postgres name
# Schemas of this project and of Postgres, and deployments that do not belong to a source.
RESERVED = frozenset(
    {
        *("analytics", "elt", "failures", "intermediate", "marts", "snapshots", "staging"),
        *("dbt", "information_schema", "public"),
        *("backfill", "notify", "transform"),
    }
)

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def check_name(name: str) -> None:
    """Refuse a name that is invalid for a module or schema, or already in use.

    Raises:
        ConfigurationError: with the remedy.
    """
    if _NAME.fullmatch(name) is None or len(name) > LONGEST_NAME:
        raise ConfigurationError(
            f"The source name {name!r} must be lower case letters, digits and single underscores "
            f"between them, at most {LONGEST_NAME}: two underscores are reserved for dbt's "
            "trial and audit schemas. Choose another NAME."
        )
    if iskeyword(name) or name in _OWN_NAMES or name in RESERVED or name.startswith("pg_"):
        raise ConfigurationError(
            f"The source name {name!r} is reserved: Python, Postgres or this project uses it. "
            f"Choose another NAME, e.g. {name}_api."
        )


def names() -> list[str]:
    """The source names, in alphabetical order."""
    return sorted(module.name for module in iter_modules(__path__))


def resource_names() -> list[str]:
    """The names of all usable sources' resources, each once, in alphabetical order."""
    return sorted({resource.name for source in usable() for resource in source.resources})


def resources_by_source() -> dict[str, list[str] | None]:
    """The names of each source's resources; None for a source that `find` refuses."""
    known = {source.name: [each.name for each in source.resources] for source in usable()}
    return {name: known.get(name) for name in names()}


def usable() -> list[Source]:
    """All sources that `find` accepts. Others are logged, so a broken module affects only itself.

    `find` raises the error of a broken source.
    """
    return [source for source in map(_find_usable, names()) if source is not None]


def _find_usable(name: str) -> Source | None:
    try:
        return find(name)
    except ConfigurationError as error:
        log.warning("The source %s can't be used: %s", name, error)
        return None


def find(name: str) -> Source:
    """The source of that name; the variable `<NAME>_BASE_URL` overrides its base URL.

    Raises:
        ConfigurationError: when there is no such module, it can't be imported, it has a reserved
            name, or it declares another name.
    """
    if name not in names():
        raise ConfigurationError(f"There is no source {name!r}. There are: {', '.join(names())}.")
    check_name(name)
    source = _import_source(name)
    if not isinstance(source, Source) or source.name != name:
        raise ConfigurationError(
            f"flows/sources/{name}.py must declare SOURCE = Source(name={name!r}, ...). If it is "
            "not a source, move it out of flows/sources/."
        )
    return replace(source, base_url=os.environ.get(f"{name.upper()}_BASE_URL", source.base_url))


def _import_source(name: str) -> object:
    try:
        module = import_module(f"{__name__}.{name}")
    except (Exception, SystemExit) as error:  # its code may raise anything
        said = f"{type(error).__name__}: {error}".rstrip(".")
        raise ConfigurationError(
            f"flows/sources/{name}.py can't be imported: {said}. Correct it, or delete it."
        ) from error
    return getattr(module, "SOURCE", None)


# A module of such a name would replace the attribute in this package.
_OWN_NAMES = frozenset(globals())
