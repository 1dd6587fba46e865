"""A project of a test's own, for the tests of deploying."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_DEPLOYMENTS_DEFAULT_WORK_POOL_NAME, temporary_settings

from deployments import actual
from deployments.local.stack import Stack
from tests.deployments.project import Project

FLOWS = """
from prefect import flow

@flow(name="{project} load")
def load(days: int = 1):
    "Load it."

@flow(name="{project} tell")
def tell(run_id: str, blocks: tuple[str, ...] = ()):
    "Tell it."
"""
_numbers = count(1)


@pytest.fixture
def project(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project with two flows; the server has none of it before the test or after it."""
    with _new_project(tmp_path, monkeypatch) as project:
        yield project


@pytest.fixture(scope="module")
def shared_project(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """One for all tests of a module."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch, _new_project(root, patch) as project:
        yield project


@contextmanager
def _new_project(root: Path, patch: pytest.MonkeyPatch) -> Iterator[Project]:
    name = f"project{os.getpid()}x{next(_numbers)}"
    (root / "deployments").mkdir()
    (root / "jobs.py").write_text(FLOWS.replace("{project}", name))
    pool = {PREFECT_DEPLOYMENTS_DEFAULT_WORK_POOL_NAME: name}
    with temporary_settings(pool), get_client(sync_client=True) as client:
        patch.setenv("PREFECT_DEPLOYMENTS_DEFAULT_WORK_POOL_NAME", name)
        patch.delenv("NOTIFY_WEBHOOK_URL", raising=False)
        project = Project(root, name, client)
        yield project
        project.write("  []\n")
        project.deploy()
        if actual.has_pool(client, name):
            client.delete_work_pool(name)
        for flow in client.read_flows():
            if flow.name.startswith(f"{name} "):
                client.delete_flow(flow.id)
