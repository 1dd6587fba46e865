"""The Postgres of `make run-local` and `make up` starts on machines of all kinds."""

import os
from pathlib import Path

import pytest

from deployments.local import postgres
from deployments.local.processes import StartError


@pytest.mark.skipif(not Path("/usr/sbin/useradd").exists(), reason="needs Debian's useradd")
def test_the_program_that_adds_users_is_found_without_its_folder_on_the_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    assert Path(postgres._useradd()).samefile("/usr/sbin/useradd")


def test_where_no_program_adds_users_the_error_names_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    with pytest.raises(StartError, match="apt install passwd"):
        postgres._useradd()
