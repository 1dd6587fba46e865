"""Promises about requirements*.in: every package that the code imports is named there."""

import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.sources.test_layering import OWN_PACKAGES, imported, packages

REPOSITORY = Path(__file__).resolve().parents[1]


def normal(name: str) -> str:
    """The name as PyPI compares it (https://packaging.python.org/specifications/name-normalization)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def named(*files: str) -> set[str]:
    lines = [line for file in files for line in (REPOSITORY / file).read_text().splitlines()]
    return {normal(re.split(r"[><=\s]", line)[0]) for line in lines if re.match("[a-z]", line)}


@pytest.mark.parametrize(
    ("folders", "files"),
    [
        (("flows", "blocks"), ("requirements-worker.in", "requirements-dask.in")),
        (
            ("deployments", "commands"),
            ("requirements-worker.in", "requirements.in", "requirements-dev.in"),
        ),
    ],
)
def test_what_is_imported_is_named(folders: tuple[str, ...], files: tuple[str, ...]) -> None:
    distributions = packages_distributions()
    known = named(*files)
    assert "prefect" in known
    modules = packages(imported(*folders)) - OWN_PACKAGES - sys.stdlib_module_names
    unnamed = {
        module: distributions.get(module)
        for module in modules
        if not known & set(map(normal, distributions.get(module, [])))
    }
    assert unnamed == {}
