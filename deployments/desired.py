"""The desired state of a checked prefect.yaml: what `prefect deploy` would send to the server.

Uses the steps and functions of `prefect deploy` (prefect.cli.deploy._core) up to its calls of the
server. Like it, needs the project's folder as the current one.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from prefect.cli.deploy._actions import _generate_default_pull_action
from prefect.cli.deploy._config import _merge_with_default_deploy_config
from prefect.cli.deploy._models import DeploymentConfig
from prefect.cli.deploy._schedules import _construct_schedules
from prefect.cli.deploy._triggers import _initialize_deployment_triggers
from prefect.client.schemas.actions import DeploymentScheduleUpdate
from prefect.deployments.runner import RunnerDeployment
from prefect.flows import Flow
from prefect.settings import get_current_settings
from prefect.utilities.callables import parameter_schema
from prefect.utilities.templating import apply_values, resolve_variables
from rich.console import Console

from deployments.check.prefect_yaml import Declared
from flows.errors import ConfigurationError

SENT = (
    "description",
    "version",
    "tags",
    "concurrency_limit",
    "concurrency_options",
    "parameters",
    "entrypoint",
    "enforce_parameter_schema",
    "work_pool_name",
    "work_queue_name",
    "job_variables",
)
_SILENT = Console(quiet=True)


@dataclass(frozen=True)
class DesiredDeployment:
    """The desired state of a deployment.

    Attributes:
        name: flow/deployment.
        fields: by their names in Prefect's API; `paused` only if the file contains it.
        schedules: by slug; `active` only if the file contains it.
        triggers: each as Prefect's model, and whether the file contains `enabled` for it.
    """

    name: str
    fields: Mapping[str, Any]
    schedules: Mapping[str, Mapping[str, Any]]
    triggers: Sequence[tuple[Any, bool]]

    @property
    def pool(self) -> str:
        return str(self.fields["work_pool_name"])


def deployments(declared: Declared) -> list[DesiredDeployment]:
    """All deployments of the file.

    Raises:
        ConfigurationError: when neither the file nor Prefect's settings name a work pool.
    """
    return [_deployment(entry, declared) for entry in declared.deployments]


def _deployment(entry: Mapping[str, Any], declared: Declared) -> DesiredDeployment:
    config = asyncio.run(_config(entry))
    flow = declared.flows[config["entrypoint"]]
    # None if there are none.
    found = _construct_schedules(config, {}, console=_SILENT, is_interactive=lambda: False)
    schedules = found or []
    triggers = config.pop("triggers", None) or []
    settled = apply_values(config, {}, skip_prefixes=["ctx."])
    runner = _runner(settled, flow)
    fields = runner.model_dump(mode="json", include=set(SENT))
    fields["pull_steps"] = _pull_steps(config, entry.get("pull", declared.pull))
    fields["parameter_openapi_schema"] = parameter_schema(flow).model_dump(exclude_unset=True)
    if settled.get("paused") is not None:
        fields["paused"] = runner.paused
    return DesiredDeployment(
        runner.full_name,
        fields,
        {str(each["slug"]): _schedule(each, config) for each in schedules},
        _triggers(runner.name, triggers),
    )


async def _config(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry with defaults, Prefect's variables and the environment filled in."""
    known = DeploymentConfig.model_validate(entry).model_dump(exclude_unset=True, mode="json")
    resolved = await resolve_variables(_merge_with_default_deploy_config(known))
    config = cast(dict[str, Any], apply_values(resolved, {}, remove_notset=False))
    pool = config["work_pool"]
    pool["name"] = pool["name"] or get_current_settings().deployments.default_work_pool_name
    if not pool["name"]:
        raise ConfigurationError(
            f"{config['name']!r} has no work pool: set PREFECT_DEPLOYMENTS_DEFAULT_WORK_POOL_NAME."
        )
    return config


def _runner(config: Mapping[str, Any], flow: Flow[..., Any]) -> RunnerDeployment:
    """The model that `prefect deploy` sends, with its version inferred in the same way."""
    limit = config["concurrency_limit"]
    options = (
        {key: value for key, value in limit.items() if key != "limit"}
        if isinstance(limit, dict)
        else None
    )
    pool = config["work_pool"]
    runner = RunnerDeployment(
        name=config["name"],
        flow_name=flow.name,
        entrypoint=config["entrypoint"],
        work_pool_name=pool["name"],
        work_queue_name=pool["work_queue_name"],
        job_variables=pool["job_variables"],
        parameters=config["parameters"],
        description=config["description"],
        version=config["version"],
        version_type=config.get("version_type"),
        tags=config["tags"],
        concurrency_limit=limit["limit"] if isinstance(limit, dict) else limit,
        concurrency_options=options,
        paused=config.get("paused"),
    )
    runner._set_defaults_from_flow(flow)
    if config.get("enforce_parameter_schema") is not None:
        runner.enforce_parameter_schema = config["enforce_parameter_schema"]
    runner._get_deployment_version_info(runner.version_type)
    return runner


def _pull_steps(config: Mapping[str, Any], steps: Any) -> list[dict[str, Any]]:
    """The steps that fetch a run's code; placeholders that only the run can fill remain."""
    if steps is None:
        steps = asyncio.run(
            _generate_default_pull_action(
                _SILENT,
                deploy_config=dict(config),
                actions={"build": []},  # type: ignore[arg-type]
                is_interactive=lambda: False,
            )
        )
    listed = [steps] if isinstance(steps, dict) and steps else list(steps)
    return cast(list[dict[str, Any]], apply_values(listed, {}, remove_notset=False))


def _schedule(given: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """A schedule's fields, without the anchor that Prefect invents if the file has none."""
    update = DeploymentScheduleUpdate(**given)
    slug = given["slug"]
    anchored = any(
        each.get("slug") == slug and each.get("anchor_date") for each in config["schedules"]
    )
    fields = schedule_fields(update.schedule, dict(update.parameters or {}))
    if not anchored:
        fields.pop("anchor_date", None)
    return {**fields, "active": update.active} if "active" in given else fields


def schedule_fields(schedule: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A schedule of Prefect's client in comparable form; a missing time zone becomes UTC."""
    fields = schedule.model_dump()
    fields["timezone"] = fields.get("timezone") or "UTC"
    if isinstance(anchor := fields.get("anchor_date"), datetime):
        fields["anchor_date"] = anchor.astimezone(UTC).isoformat()
    return {**fields, "parameters": dict(parameters)}


def _triggers(name: str, specs: Sequence[dict[str, Any]]) -> list[tuple[Any, bool]]:
    """The triggers' models; their parameters are templates of events and stay unfilled here."""
    settled = [
        {
            **apply_values({key: spec[key] for key in spec if key != "parameters"}, {}),
            **({"parameters": spec["parameters"]} if "parameters" in spec else {}),
        }
        for spec in specs
    ]
    models = _initialize_deployment_triggers(name, settled)
    return [(model, "enabled" in spec) for model, spec in zip(models, specs, strict=True)]
