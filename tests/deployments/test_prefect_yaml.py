"""prefect.yaml against a real server: accepted whole, run by a worker, the marts are there."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.client.orchestration import SyncPrefectClient, get_client

from deployments.local.processes import child
from deployments.local.stack import Stack
from flows import sources

REPOSITORY = Path(__file__).resolve().parents[2]
DECLARED: dict[str, Any] = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())


def prefect(stack: Stack, *arguments: str) -> str:
    """Run Prefect's command line against the stack's server, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **stack.environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def deployed(stack: Stack) -> SyncPrefectClient:
    """A client of the server after `prefect deploy --all`."""
    prefect(stack, "work-pool", "create", "elt", "--type", "process", "--overwrite")
    prefect(stack, "deploy", "--all")
    return get_client(sync_client=True)


def test_every_source_has_a_deployment_of_its_name() -> None:
    names = {entry["name"]: entry for entry in DECLARED["deployments"]}
    assert sources.names()
    for name in sources.names():
        assert names[name]["parameters"] == {"source": name}
    assert set(names) == {*sources.names(), "transform"}


def test_no_key_is_unknown_to_prefect() -> None:
    known = PrefectYamlModel.model_fields
    unknown = set(DECLARED) - {field.alias or name for name, field in known.items()} - set(known)
    assert unknown == {"definitions"}
    deployment = PrefectYamlModel.model_validate(DECLARED).deployments[0]
    for entry in DECLARED["deployments"]:
        assert set(entry) <= set(type(deployment).model_fields)
        assert set(entry["work_pool"]) <= {"name", "work_queue_name", "job_variables"}


def test_every_schedule_is_on_the_server_with_its_time_zone(deployed: SyncPrefectClient) -> None:
    with deployed as server:
        for entry in DECLARED["deployments"]:
            flow = entry["entrypoint"].rpartition(":")[2]
            found = server.read_deployment_by_name(f"{flow}/{entry['name']}")
            assert [
                (schedule.slug, schedule.schedule.cron, schedule.schedule.timezone)
                for schedule in found.schedules
            ] == [
                (wanted["slug"], wanted["cron"], wanted["timezone"])
                for wanted in entry["schedules"]
            ]


def watch(stack: Stack, source: str) -> None:
    """Trigger a run through the API and wait for its end; a run that fails fails the command."""
    prefect(stack, "deployment", "run", f"elt/{source}", "--watch")


def test_a_worker_runs_what_is_triggered_through_the_api(
    stack: Stack, deployed: SyncPrefectClient, ask: Callable[..., list[tuple]], tmp_path: Path
) -> None:
    worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "elt"]
    log = tmp_path / "worker.log"
    soon = {**stack.environment, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    with child([*worker, "--type", "process"], log, soon), ThreadPoolExecutor() as pool:
        list(pool.map(partial(watch, stack), sources.names()))
    report = ask("select sales_month, revenue from marts.rpt_sales_vs_weather order by 1")
    assert report == ask(
        "select date_trunc('month', order_date::date)::date,"
        " round(sum(unit_price * quantity * (1 - discount)), 2)"
        " from raw_northwind.orders join raw_northwind.order_details using (order_id)"
        " where ship_city = 'London' group by 1 order by 1"
    )
    assert ask("select min(weather_days) from marts.rpt_sales_vs_weather") == [(28,)]
