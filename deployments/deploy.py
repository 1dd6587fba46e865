"""`make deploy`: bring the server to the state that prefect.yaml and automations.yaml declare.

`make deploy-plan` prints what that would change, and changes nothing. Both check the files first.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import WorkerFilter, WorkerFilterStatus
from prefect.client.schemas.objects import WorkerStatus
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import get_current_settings

from blocks import environment
from blocks.__main__ import save
from blocks.channels import variable
from blocks.environment import own
from deployments import actual, environments
from deployments.check import prefect_yaml
from deployments.check.prefect_yaml import Declared
from deployments.env_file import env_file, read_environment
from deployments.local import running_server
from deployments.plan import Change, Plan, compare
from flows.errors import (
    ConfigurationError,
    EltError,
    RefusedLoginError,
    UnavailableError,
)

ROOT = Path(__file__).resolve().parents[1]
NOTHING = "Nothing to change."
POOL_TYPE = "ELT_WORK_POOL_TYPE"
Say = Callable[[str], None]


def main() -> int:
    """Deploy, or only plan; 0 on success."""
    parser = argparse.ArgumentParser(prog="make deploy", description=__doc__)
    parser.add_argument("--plan", action="store_true", help="only print what would change")
    parser.add_argument("--home", type=Path, default=running_server.HOME, help="of `make up`")
    arguments = parser.parse_args()
    read_environment()
    print_environment()
    use_local_server(arguments.home)
    try:
        with connected() as client, inside(ROOT):
            (plan if arguments.plan else deploy)(client, ROOT, print)
    except EltError as error:
        print(f"FAILED: {error}")
        return 1
    return 0


def print_environment() -> None:
    """Print the environment beside production that the command is for, and where it is defined."""
    if not environment.is_production():
        file = env_file()
        missing = "" if file.exists() else ", which does not exist: the shell alone defines it"
        print(f"Environment {environment.name()}: {file.name}{missing}", flush=True)


def use_local_server(home: Path) -> None:
    """Start this command again with the settings of `make up`, if it runs and no other is named.

    Those include its warehouse and its messages' receivers: .env may name those of production.
    Prefect has read its settings by now, so they need a new process.
    """
    settings, url = running_server.find(home), get_current_settings().api.url
    if not settings or not environment.is_production():
        return
    if url and not running_server.is_same(url, settings["PREFECT_API_URL"]):
        return
    if not settings.items() <= os.environ.items():
        print(f"Using the server of `make up`: {settings['PREFECT_API_URL']}", flush=True)
        command = [sys.executable, "-m", "deployments.deploy", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **settings})  # noqa: S606 (this command)


@contextmanager
def connected() -> Iterator[SyncPrefectClient]:
    """A client of the server that Prefect's settings name.

    Raises:
        ConfigurationError: when they name none; Prefect would start a server and deploy to it.
        RefusedLoginError: when the server refuses the login.
        UnavailableError: when the server does not respond.
    """
    url = get_current_settings().api.url
    if not url:
        raise ConfigurationError(
            "PREFECT_API_URL is not set, and no `make up` is running: start it, name your server "
            f"in {env_file().name}, or run `prefect cloud login`."
        )
    try:
        with get_client(sync_client=True) as client:
            yield client
    except PrefectHTTPStatusError as error:
        raise _convert_refusal(url, error) from error
    except httpx.TransportError as error:
        raise UnavailableError(
            f"{url} does not respond ({type(error).__name__}). Start the server, or correct "
            f"PREFECT_API_URL in {env_file().name}."
        ) from error


def _convert_refusal(url: str, error: PrefectHTTPStatusError) -> EltError:
    status = error.response.status_code
    if status in (401, 403):
        return RefusedLoginError(
            f"{url} responds with {status}: correct PREFECT_API_KEY in {env_file().name}."
        )
    cause = f"{error.request.method} {error.request.url.path} with {status}: {error.response.text}"
    return ConfigurationError(f"{url} refused {cause[:500]}. Correct what it names, deploy again.")


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Make a folder the current one; Prefect finds entrypoints and Git relative to it."""
    before, pwd = Path.cwd(), os.environ.get("PWD")
    os.chdir(folder)
    os.environ["PWD"] = str(folder)
    try:
        yield
    finally:
        os.chdir(before)
        os.environ["PWD"] = pwd or str(before)


def plan(client: SyncPrefectClient, root: Path, say: Say) -> Plan:
    """Print what `deploy` would change.

    Raises:
        ConfigurationError: when `deploy` would raise it.
    """
    project = prefect_yaml.read(root)
    found = compare(client, project)
    _refuse_missing(found.missing_blocks, os.environ)
    lines = [f"create block {slug}" for slug in found.missing_blocks]
    _print_changes(found, lines, say)
    return found


def deploy(client: SyncPrefectClient, root: Path, say: Say) -> Plan:
    """Apply the declared state to the server, and print the changes.

    Raises:
        ConfigurationError: when the files or the environment are wrong, or the server refuses.
        UnavailableError: when the server still differs afterwards, e.g. after a parallel deploy.
    """
    project = prefect_yaml.read(root)
    saved = save(os.environ)
    first = compare(client, project)
    _refuse_missing(first.missing_blocks, {})
    say(f"Blocks saved from the environment: {', '.join(saved)}")
    if first.changes:
        _make_pools(first)
        _deploy_changed(client, project, first)
        settle(client, compare(client, project, first.disabled))
        _check_converged(compare(client, project, first.disabled))
    _print_changes(first, [], say)
    _say_next(client, say)
    return first


def _refuse_missing(slugs: Sequence[str], given: Mapping[str, str]) -> None:
    """Raise when a block does not exist and the environment lacks the variable to create it."""
    channels = {slug: slug.partition("/")[2].removesuffix(own("")) for slug in slugs}
    variables = {slug: variable(channel) for slug, channel in channels.items()}
    lost = {slug: name for slug, name in variables.items() if not given.get(name)}
    if lost:
        file = env_file().name
        lines = "\n".join(f"  {slug}: set {name} in {file}" for slug, name in lost.items())
        raise ConfigurationError(
            f"These notification blocks do not exist:\n{lines}\nOr remove them from notify's "
            "`blocks` in prefect.yaml and from deployments/automations.yaml."
        )


def _print_changes(found: Plan, lines: Sequence[str], say: Say) -> None:
    for line in [*lines, *map(str, found.changes)]:
        say(line)
    if not found.changes and not lines:
        say(NOTHING)
    for name in found.paused:
        say(f"{name} was paused by hand, and stays so.")
    for name in sorted(found.disabled):
        say(f"automation {name} was disabled by hand, and stays so.")


def _say_next(client: SyncPrefectClient, say: Say) -> None:
    """Print the UI's address, and how to start a worker if the pool has none."""
    say(f"See {get_current_settings().ui_url}/deployments")
    pool = get_current_settings().deployments.default_work_pool_name
    found = actual.pool(client, pool) if pool else None
    if not (pool and found):
        return
    online = client.read_workers_for_work_pool(
        pool,
        worker_filter=WorkerFilter(status=WorkerFilterStatus(any_=[WorkerStatus.ONLINE])),
    )
    if not (online or found.is_push_pool or found.is_managed_pool):
        say(f"Nothing runs yet: start a worker with `prefect worker start --pool {pool}`.")


def _make_pools(found: Plan) -> None:
    for change in found.of("work pool", "create"):
        kind = os.environ.get(POOL_TYPE) or "process"
        _prefect("work-pool", "create", change.name, "--type", kind)


def _deploy_changed(client: SyncPrefectClient, project: Declared, found: Plan) -> None:
    """Run `prefect deploy` for what changed, then pause again what was paused by hand."""
    changed = {
        change.name
        for change in [*found.of("deployment"), *found.of("schedule")]
        if change.verb != "remove"
    }
    if not changed:
        return
    named = [word for name in sorted(changed) for word in ("--name", name.partition("/")[2])]
    is_all = len(changed) == len(project.deployments)
    with environments.prefect_file(project.project, project.pull, project.deployments) as file:
        _prefect("deploy", *(["--all"] if is_all else named), *file)
    for name in changed & set(found.paused):
        client.pause_deployment(found.paused[name])


def _check_converged(found: Plan) -> None:
    """Raise when the server still differs from the files, e.g. after a parallel deploy."""
    if found.changes:
        lines = "\n  ".join(map(str, found.changes))
        raise UnavailableError(f"The server still differs from the files:\n  {lines}\nTry again.")


def settle(client: SyncPrefectClient, found: Plan) -> None:
    """Make the changes that `prefect deploy` does not make: automations, and all removals."""
    for change in found.of("schedule"):
        _settle_schedule(client, change)
    for change in found.of("automation"):
        _settle_automation(client, change)
    for change in found.of("deployment", "remove"):
        client.delete_resource_owned_automations(f"prefect.deployment.{change.ids[0]}")
        client.delete_deployment(change.ids[0])


def _settle_schedule(client: SyncPrefectClient, change: Change) -> None:
    if change.verb == "remove":
        client.delete_deployment_schedule(*change.ids)
    elif change.verb == "update":
        deployment, schedule = change.ids
        parameters = change.body["parameters"]
        client.update_deployment_schedule(deployment, schedule, parameters=parameters)


def _settle_automation(client: SyncPrefectClient, change: Change) -> None:
    if change.verb == "create":
        client.create_automation(change.body)
    elif change.verb == "remove":
        client.delete_automation(change.ids[0])
    else:
        body = change.body.model_dump(exclude={"owner_resource"})
        client.update_automation(change.ids[0], AutomationCore.model_validate(body))


def _prefect(*words: str) -> None:
    """Run Prefect's command line in the current folder.

    Raises:
        ConfigurationError: when it fails; the message contains its output.
    """
    command = [sys.executable, "-m", "prefect", "--no-prompt", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        output = f"{done.stdout}{done.stderr}".strip()
        raise ConfigurationError(f"`prefect {' '.join(words)}` failed:\n{output}")


if __name__ == "__main__":
    sys.exit(main())
