"""A new source gets a deployment in prefect.yaml, and the owner's text stays."""

import json
from pathlib import Path

import pytest
import yaml
from conftest import TREE

from commands.new_source import files
from commands.new_source.__main__ import _deployment_step, make_draft
from commands.new_source.deployment import stanza, with_deployment, without_deployments
from commands.new_source.draft_files import present_source, write
from commands.new_source.files import content
from flows.errors import ConfigurationError
from tests.commands.new_sources import Serve, bare_repository, new_source
from tests.commands.test_new_source_options import contents, killed_at
from tests.http_servers import Answer

ROWS = Answer(json.dumps([{"id": 1}, {"id": 2}]).encode())
OURS = (TREE / "prefect.yaml").read_text()
ANCHORS = """definitions: # ours
  retry: &retry {retries: 1}
  one: &one_at_a_time {limit: 1}
  pool: &work_pool {}
"""
SOURCE = """- name: orders
  entrypoint: flows/elt.py:elt
  schedules: []
  parameters: {source: orders}
"""
OTHER = "- name: other\n  entrypoint: flows/other.py:other\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty repository with this one's prefect.yaml."""
    root = bare_repository(tmp_path)
    (root / "prefect.yaml").write_text(OURS)
    return root


def add(root: Path, url: str) -> None:
    write([make_draft("shop", url, "", "id", "", "", present_source(root, "shop"))], root)


def test_a_new_source_has_a_deployment_and_another_resource_none(serve: Serve, root: Path) -> None:
    url = serve(lambda _: ROWS).url
    made = new_source(root, f"{url}v1/orders", name="shop")
    assert "  prefect.yaml\n" in made.stdout
    assert "  describe and schedule the source in prefect.yaml, then make deploy\n" in made.stdout
    after = (root / "prefect.yaml").read_text()
    deployments = yaml.safe_load(after)["deployments"]
    first, _, third = deployments[:3]
    assert third == first | {key: third[key] for key in ("name", "description", "schedules")} | {
        "parameters": first["parameters"] | {"source": "shop"}
    }
    add(root, f"{url}v1/lines")
    assert (root / "prefect.yaml").read_text() == after


PLACES = {
    "behind the last source": (f"{SOURCE}\n", "\n# of the other\n" + OTHER),
    "behind an alias": (f"{SOURCE}  pool: *work_pool # the last\n", "\n" + OTHER),
    "behind comments": (f"{SOURCE}  # active: false\n", OTHER),
    "behind a folded text": (f"{SOURCE}  about: >\n    Folded\n    text.\n", "\n" + OTHER),
    "at the end": (f"{OTHER}\n{SOURCE}", ""),
    "as the first": ("", "# of the other\n" + OTHER),
}


@pytest.mark.parametrize("indent", ["", "  "])
@pytest.mark.parametrize(("before", "behind"), PLACES.values(), ids=PLACES)
def test_it_has_its_place_and_all_else_stays(before: str, behind: str, indent: str) -> None:
    text = f"{ANCHORS}deployments: # all\n"
    before, behind, item = (
        "".join(indent + line if line.strip() else line for line in each.splitlines(keepends=True))
        for each in (before, behind, stanza("shop"))
    )
    after = with_deployment(text + before + behind, "shop")
    assert after.count(item) == 1
    at = after.index(item)
    # Only a blank line more, which separates it.
    kept = after[:at].removesuffix("\n") + after[at + len(item) :]
    assert kept.replace("\n\n", "\n") == (text + before + behind).replace("\n\n", "\n")
    assert after[:at].strip() == (text + before).strip()


def test_a_file_that_ends_without_a_line_break_gets_one() -> None:
    text = f"{ANCHORS}deployments:\n{SOURCE}".rstrip()
    assert with_deployment(text, "shop") == f"{text}\n\n{stanza('shop')}"


UNCLEAR = {
    "deployments: []\n": "has no &retry",
    f"{ANCHORS}deployments: [{{name: a}}]\n": "not one to a line",
    f"deployments:\n{SOURCE}": "has no &retry, &one_at_a_time, &work_pool: write the values",
    f"{ANCHORS}other: 1\n": "deployments is there 0 times",
    f"{ANCHORS}deployments:\n- name: shop\n": "has a deployment 'shop' of something else",
    "deployments: [\n": "can't be read",
    "": "write the values themselves",
}


@pytest.mark.parametrize(("text", "said"), UNCLEAR.items())
def test_without_a_clear_place_it_is_printed_with_the_reason(
    serve: Serve, root: Path, text: str, said: str
) -> None:
    (root / "prefect.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        with_deployment(text, "shop")
    add(root, f"{serve(lambda _: ROWS).url}v1/orders")
    assert (root / "prefect.yaml").read_text() == text
    step = _deployment_step(root, "shop")
    assert said in step
    assert "  - name: shop\n" in step


def test_a_deployment_that_exists_is_kept(serve: Serve, root: Path) -> None:
    text = with_deployment(OURS, "shop").replace("name: shop", "name: mine")
    (root / "prefect.yaml").write_text(text)
    add(root, f"{serve(lambda _: ROWS).url}v1/orders")
    assert (root / "prefect.yaml").read_text() == text


@pytest.mark.parametrize("step", range(7))
def test_a_killed_run_leaves_none(serve: Serve, root: Path, step: int) -> None:
    url = serve(lambda _: ROWS).url
    before = contents(root)
    killed_at(step, lambda: add(root, f"{url}v1/orders"))
    assert (content(root / "prefect.yaml") != OURS.encode()) == (step == 6)
    files.write(root, [])
    assert contents(root) == before


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"deployments:\n# of orders\n{SOURCE}\n# of other\n{OTHER}", "# of other\n" + OTHER),
        (f"deployments:\n# of other\n{OTHER}\n# of orders\n{SOURCE}", f"# of other\n{OTHER}\n"),
        (f"deployments:\n{SOURCE}{OTHER}other: 1\n", f"{OTHER}other: 1\n"),
    ],
    ids=["the first", "the last", "without blank lines"],
)
def test_a_deployment_is_taken_out_with_its_comment(text: str, left: str) -> None:
    assert without_deployments(text, ["orders"]) == f"deployments:\n{left}"
    assert without_deployments(text, ["shop"]) == text


def test_a_deployment_whose_anchor_others_use_is_not_taken_out() -> None:
    anchored = SOURCE.replace("schedules: []", "schedules: &none []")
    text = f"deployments:\n{anchored}{OTHER}  schedules: *none\n"
    with pytest.raises(ConfigurationError, match=r"(?s)can't be shortened.*by hand"):
        without_deployments(text, ["orders"])
