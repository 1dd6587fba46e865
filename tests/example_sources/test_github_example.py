"""Promises of docs/examples/github.py: issues and comments arrive exactly, and only new ones."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from flows.errors import RefusedLoginError
from tests.chaos.victim import Death
from tests.example_sources.example import Example, by_id, once
from tests.example_sources.github_api import TOKEN, GitHub, limited, limited_for_a_while

HELLO = "octocat/hello-world"
SECOND_PAGE = "/repositories/1296269/issues/7/comments"

pytest_plugins = ["tests.example_sources.fixtures"]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> GitHub:
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    return GitHub()


@pytest.fixture
def github(example: Callable[..., Example], api: GitHub) -> Example:
    return example("github", api)


def assert_exact(github: Example, api: GitHub) -> None:
    """The tables are what the API has."""
    issues, comments = [], []
    for name, rows in api.issues.items():
        owner, repo = name.split("/")
        for row in rows:
            place = {"owner": owner, "repo": repo}
            issues.append({**row, **place})
            number = {"number": row["number"]}
            comments += [{**each, **place, **number} for each in api.comments[row["id"]]]
    assert github.rows("issues") == by_id(issues)
    assert github.rows("comments") == by_id(comments)


def test_all_arrives_and_later_only_what_changed(github: Example, api: GitHub) -> None:
    """A comment changes its issue, so only its comments are asked for."""
    github.load()
    assert_exact(github, api)
    issues = ["/repos/octocat/hello-world/issues", "/repos/octocat/spoon-knife/issues"]
    counts, asked = github.load_again()
    assert (counts, sorted(asked)) == ((0, 0, 0), issues)
    api.comment(HELLO, 7, "2026-04-01T09:00:00Z")
    counts, asked = github.load_again()
    assert counts == (1, 1, 0)
    assert sorted(asked) == sorted([*issues, f"{issues[0]}/7/comments", SECOND_PAGE])
    assert_exact(github, api)


def test_an_issue_that_changes_meanwhile_shifts_none_away(github: Example, api: GitHub) -> None:
    """The oldest issue moves to the front after the first page: the next load gets its change."""

    def move(asked: Any) -> None:
        if "page=2" in asked and api.issues[HELLO][0]["updated_at"] < "2026-04":
            api.comment(HELLO, 1, "2026-04-01T09:00:00Z")

    api.before = move
    github.load()
    github.load()
    assert_exact(github, api)


def test_limits_are_waited_for(github: Example, api: GitHub, slept: list[float]) -> None:
    """Until the hour's requests are there again, or for as long as the API says."""
    reset_at = int(time.time()) + 1800
    api.before = once(
        lambda asked: "hello-world" in asked, limited(reset_at), limited_for_a_while(60)
    )
    github.load()
    assert_exact(github, api)
    assert 1700 < max(slept) <= 1801
    assert 60 in slept


def test_a_refused_token_is_named_and_nothing_is_stored(
    github: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "github_pat_of_yesterday")
    with pytest.raises(RefusedLoginError, match="Bad credentials") as raised:
        github.load()
    assert "yesterday" not in str(raised.value)
    assert github.query("select to_regclass('raw_github.issues')") == [(None,)]


def test_a_repository_without_issues_has_none(github: Example, api: GitHub) -> None:
    api.turned_off.add("octocat/spoon-knife")
    api.issues["octocat/spoon-knife"] = []
    github.load()
    assert_exact(github, api)


@pytest.mark.parametrize(
    "death",
    [
        Death("after", "commit", 9, in_lockstep=True),
        pytest.param(Death("before", "page", 20), marks=pytest.mark.long),
    ],
    ids=str,
)
def test_a_load_that_is_killed_goes_on_to_the_same_tables(
    github: Example, api: GitHub, death: Death
) -> None:
    github.die(death)
    github.load()
    assert_exact(github, api)
