"""The deployments of sources in prefect.yaml: adds that of a new one, and takes out others."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from commands.new_source.literals import yaml_text
from commands.new_source.yaml_lists import inserted, without
from flows.errors import ConfigurationError

PATH = Path("prefect.yaml")
FLOW = "flows/elt.py:elt"
_ALIAS = re.compile(r": \*(\w+)")


def stanza(source: str) -> str:
    """The deployment as YAML; prefect.yaml has its anchors."""
    name = yaml_text([source])[2:].strip()
    return f"""- name: {name}
  description: Describe what it loads and builds.
  entrypoint: {FLOW}
  tags: [elt, watched]
  parameters:
    source: {name}
    retry: *retry
  concurrency_limit: *one_at_a_time
  work_pool: *work_pool
  schedules:
    - slug: daily
      cron: "0 6 * * *"
      timezone: Etc/UTC
"""


def is_deployed(text: str, source: str) -> bool:
    """Whether prefect.yaml has a deployment of the source."""
    return any(_source(each) == source for each in _deployments(text))


def with_deployment(text: str, source: str) -> str:
    """The text of prefect.yaml with a deployment behind that of the last source, or as the first.

    Raises:
        ConfigurationError: when there is no place for it that is clear.
    """
    found = _deployments(text)
    if any(each.get("name") == source for each in found):
        raise ConfigurationError(f"{PATH} has a deployment {source!r} of something else.")
    missing = [f"&{name}" for name in _ALIAS.findall(stanza(source)) if not _anchor(text, name)]
    if missing:
        raise ConfigurationError(
            f"{PATH} has no {', '.join(missing)}: write the values themselves, as in your other "
            "deployments."
        )
    behind = [at for at, each in enumerate(found) if _source(each) is not None]
    position = behind[-1] + 1 if behind else 0
    after = inserted(text, ("deployments",), position, stanza(source))
    if _source(_deployments(after)[position]) != source:
        raise ConfigurationError(f"{PATH} would get another deployment. Add it by hand.")
    return after


def without_deployments(text: str, sources: Collection[str]) -> str:
    """The text of prefect.yaml without the deployments that load and build these sources."""
    gone = [at for at, each in enumerate(_deployments(text)) if _source(each) in sources]
    return without(text, ("deployments",), gone)


def _anchor(text: str, name: str) -> bool:
    return any(
        isinstance(token, yaml.AnchorToken) and token.value == name for token in yaml.scan(text)
    )


def _deployments(text: str) -> list[Mapping[str, Any]]:
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{PATH} can't be read: {error}. Correct it first.") from error
    found = document.get("deployments") if isinstance(document, Mapping) else None
    listed = found if isinstance(found, list) else []
    if not all(isinstance(each, Mapping) for each in listed):
        raise ConfigurationError(f"{PATH} has a deployment that is no mapping. Correct it first.")
    return listed


def _source(deployment: Mapping[str, Any]) -> str | None:
    """The source that a deployment loads and builds; None if it does something else."""
    parameters = deployment.get("parameters")
    if deployment.get("entrypoint") != FLOW or not isinstance(parameters, Mapping):
        return None
    name = parameters.get("source")
    return name if isinstance(name, str) else None
