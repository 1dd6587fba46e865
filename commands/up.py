"""`make up`: run the whole system on one machine until Ctrl-C.

Must not import Prefect: the processes it starts read their settings from the environment.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from textwrap import indent
from types import FrameType
from typing import NoReturn

from blocks.channels import addresses, named, variable
from commands.local_warehouse import LIVE, SAMPLE, add_home_argument
from deployments.env_file import env_file, read_environment
from deployments.local.message_sink import Message, receiving
from deployments.local.processes import (
    Service,
    StartError,
    child,
    free_port,
    uninterrupted,
    wait_for,
)
from deployments.local.running_server import announce, withdraw
from deployments.local.stack import START_SECONDS, Stack, has_sample_api, running
from flows import sources
from flows.extract.auth import variable as secret_variable

POOL = "elt"
WATCH_SECONDS = 0.5
LAST_LINES = 20
MODULE = [sys.executable, "-m"]
DECLARATIONS = (Path("prefect.yaml"), Path("deployments/automations.yaml"))
SOURCES = Path("flows/sources")
Deploy = Callable[[], None]
Versions = set[tuple[str, int]]
# Overrides what the shell or .env set for another server.
HERE = {
    "ELT_CODE": "",
    "ENVIRONMENT": "",
    "ELT_REF": "",
    "ELT_WORK_POOL_TYPE": "process",
    "GIT_TOKEN": "",
    "PREFECT_DEPLOYMENTS_DEFAULT_WORK_POOL_NAME": POOL,
}


def main() -> int:
    """Run until a signal (0 for Ctrl-C) or until a part ends by itself (1)."""
    parser = argparse.ArgumentParser(prog="make up", description=__doc__)
    add_home_argument(parser)
    parser.add_argument("--port", type=int, default=0, help="of Prefect; any free one if not given")
    arguments = parser.parse_args()
    read_environment()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        with _system(arguments.home, arguments.port) as (services, deploy, deployed):
            _watch(services, deploy, deployed)
    except StartError as error:
        say(f"\nFAILED: {error}")
    return 1


def say(text: str) -> None:
    """Print without buffering, also into a pipe, and atomically: receivers print from threads."""
    print(f"{text}\n", end="", flush=True)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Exit, and ignore further signals: a second Ctrl-C must not interrupt the clean-up."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(0 if number == signal.SIGINT else 128 + number)


def channels(declared: str, receivers: Mapping[str, str]) -> dict[str, str]:
    """A variable for every channel that is declared or in .env, pointing at the local receivers."""
    webhook, email = receivers[variable("webhook")], receivers[variable("email")]
    urls = {"webhook": webhook, "slack": webhook.replace("http://", "json://")}
    names = {*named(declared), *addresses(os.environ)}
    return {variable(name): urls.get(name, email) for name in names}


@contextmanager
def _system(home: Path, port: int) -> Iterator[tuple[Sequence[Service], Deploy, Versions]]:
    """Start the system, print its addresses, and end it afterwards.

    Yields its services, what deploys again, and the versions of the files that are deployed.
    """
    database, scale = (SAMPLE, 1) if has_sample_api() else (LIVE, None)
    say(f"Starting Postgres, a Prefect server and other services; data and logs: {home} ...")
    with ExitStack() as opened:
        with uninterrupted():
            receivers = opened.enter_context(receiving(_print_message))
        stack = opened.enter_context(running(home, database, scale, port))
        stack.wait()
        opened.callback(withdraw, home)
        deploy = partial(_deploy, home, {**stack.environment, **HERE}, receivers)
        deployed = deploy_first(deploy)
        say("Starting a worker ...")
        with _worker(home / "worker.log", stack.environment) as worker:
            say(_format_addresses(stack))
            try:
                yield (*stack.services, worker), deploy, deployed
            finally:
                say("\nEnding all of it ...")


def _deploy(home: Path, environment: Mapping[str, str], receivers: Mapping[str, str]) -> None:
    """Run `make deploy` with what .env has now, and all messages directed to `receivers`.

    A `make deploy` by hand finds the same settings.

    Raises:
        StartError: when it fails; the message has the end of its output.
    """
    log = home / "deploy.log"
    log.unlink(missing_ok=True)
    read_environment()
    try:
        declared = "".join(path.read_text(encoding="utf-8") for path in DECLARATIONS)
    except (OSError, UnicodeError) as error:
        raise StartError(f"what is to be deployed can't be read: {error}") from error
    settings = {**environment, **channels(declared, receivers)}
    announce(home, settings)
    with child([*MODULE, "deployments.deploy"], log, settings) as process:
        code = process.wait()
    if code:
        last = "\n".join(log.read_text(encoding="utf-8").splitlines()[-LAST_LINES:])
        raise StartError(f"deploying ended with code {code}; see {log}:\n{indent(last, '  ')}")


def deploy_first(deploy: Deploy) -> Versions:
    """Deploy what the files declare, and return their versions from before that.

    Deploys again if a file changed meanwhile and made it fail: files and server then differ.

    Raises:
        StartError: when it fails although no file changed.
    """
    while True:
        versions = _versions()
        say("Deploying what prefect.yaml declares ...")
        try:
            deploy()
        except StartError:
            if _versions() == versions:
                raise
            say("A file changed meanwhile.")
        else:
            return versions


def from_blocks() -> dict[str, str]:
    """Variables for a worker that reads secrets from the blocks, which follow a changed .env."""
    names = {name for source in sources.usable() for name in source.secret_names}
    return {secret_variable(name): "" for name in names}


@contextmanager
def _worker(log: Path, environment: Mapping[str, str]) -> Iterator[Service]:
    port = free_port()
    settings = {
        **environment,
        **from_blocks(),
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
        "PREFECT_WORKER_WEBSERVER_PORT": str(port),
    }
    command = [*MODULE, "prefect", "worker", "start", "--pool", POOL, "--with-healthcheck"]
    with child(command, log, settings) as process:
        wait_for(f"http://127.0.0.1:{port}/health", process, log, START_SECONDS)
        yield Service("worker", log, lambda: process.poll() is None)


def _watch(services: Sequence[Service], deploy: Deploy, deployed: Versions) -> NoReturn:
    """Deploy again what changes, until a signal comes; or raise when a part ends by itself.

    Args:
        services: the parts that must go on.
        deploy: deploys what the files declare.
        deployed: the versions of the files that are deployed.
    """
    before = _versions()
    while True:
        for service in services:
            service.check()
        time.sleep(WATCH_SECONDS)
        found = _versions()
        if found != deployed and found == before:  # an editor has written all of it
            _deploy_again(sorted({path for path, _ in found ^ deployed}), deploy)
            deployed = found
        before = found


def _versions() -> Versions:
    """The files that decide what is deployed, and when they were changed."""
    files = [*DECLARATIONS, *SOURCES.glob("*.py"), env_file()]
    found = set()
    for file in files:
        with suppress(FileNotFoundError):
            found.add((os.path.relpath(file), file.stat().st_mtime_ns))
    return found


def _deploy_again(changed: Sequence[str], deploy: Deploy) -> None:
    say(f"{', '.join(changed)} changed: deploying ...")
    try:
        deploy()
        say("Deployed.")
    except StartError as error:
        say(f"FAILED: {error}\nThe deployments are as before. Correct the file: it is tried again.")


def _print_message(message: Message) -> None:
    """Print a message that arrived."""
    at = datetime.now().astimezone().strftime("%H:%M:%S")
    heading = f"{at}  {message.channel}  {message.subject}".rstrip()
    say(f"{heading}\n{indent(message.text, '          ')}".rstrip())


def _format_addresses(stack: Stack) -> str:
    api_url = stack.environment["PREFECT_API_URL"]
    flow, name = next((("elt", each) for each in sources.names()), ("transform", "transform"))
    pages = "\n".join(f"  {each.name:<16}{each.page}" for each in stack.services if each.page)
    return f"""Ready.

{pages}
  database        make psql

Start a run in the UI (Deployments, {name}, Run), or in another terminal:

  export PREFECT_API_URL={api_url}
  .venv/bin/prefect deployment run {flow}/{name} --watch

What changes in flows/sources, prefect.yaml or .env is deployed at once.
Mail and webhook messages that the flows send are printed here.
Ctrl-C ends all of it.
"""


if __name__ == "__main__":
    sys.exit(main())
