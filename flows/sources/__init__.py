"""The sources, found by listing this package: one module an API, each with a `SOURCE`."""

import os
from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules

from flows.declaration import Source
from flows.errors import ConfigurationError


def names() -> list[str]:
    """The source names, in alphabetical order."""
    return sorted(module.name for module in iter_modules(__path__))


def resource_names() -> list[str]:
    """The names of all sources' resources, each once, in alphabetical order."""
    return sorted({resource.name for name in names() for resource in find(name).resources})


def find(name: str) -> Source:
    """The source of that name; `<NAME>_BASE_URL` in the environment moves it to another address.

    Raises:
        ConfigurationError: when there is no such module, or it declares another name.
    """
    if name not in names():
        raise ConfigurationError(f"There is no source {name!r}. There are: {', '.join(names())}.")
    source = import_module(f"{__name__}.{name}").SOURCE
    if not isinstance(source, Source) or source.name != name:
        raise ConfigurationError(
            f"flows/sources/{name}.py must declare SOURCE = Source(name={name!r}, ...)."
        )
    return replace(source, base_url=os.environ.get(f"{name.upper()}_BASE_URL", source.base_url))
