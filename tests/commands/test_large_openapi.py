"""Documents as large and as odd as real ones are listed, and what is chosen is written."""

import json
from pathlib import Path
from time import process_time
from typing import Any

import pytest

from commands.new_source.api_document import drafts_of, listing
from commands.new_source.draft_files import present_source, write
from flows.errors import ConfigurationError
from tests.commands.large_openapi import like_github, like_kubernetes, like_stripe
from tests.commands.new_sources import bare_repository

MOST_SECONDS = 10


@pytest.mark.parametrize(
    ("content", "chosen", "paging", "keys"),
    [
        (
            like_stripe(),
            ["kind_0s", "kind_149s"],
            "_Keyset(record_field='id', place=Place(param='starting_after', header='', "
            "body_field=''), more='has_more', counts='')",
            ("id",),
        ),
        (like_github(), ["thing_0s", "thing_119s"], "_NextLink(more='')", ()),
        (
            like_kubernetes(),
            ["kind0s", "kind99s"],
            "_NextToken(field='metadata.continue', place=Place(param='continue', header='', "
            "body_field=''), more='')",
            (),
        ),
    ],
    ids=["stripe", "github", "kubernetes"],
)
def test_a_large_document_is_listed_and_what_is_chosen_is_written(
    tmp_path: Path, content: dict[str, Any], chosen: list[str], paging: str, keys: tuple[str, ...]
) -> None:
    """With form bodies, `expand`, recursive schemas, chains of references and extensions."""
    place = tmp_path / "api.json"
    place.write_text(json.dumps(content))
    assert len(content["paths"]) >= 300
    root = bare_repository(tmp_path / "clone")
    began_at = process_time()
    assert f"RESOURCES={chosen[0]}" in listing(str(place), "big") or "thing_0s" in chosen
    write(drafts_of(str(place), "big", ",".join(chosen), "", "none", None), root)
    assert process_time() - began_at < MOST_SECONDS
    found = present_source(root, "big")
    assert found is not None
    assert [resource.name for resource in found.resources] == chosen
    assert {repr(resource.paging) for resource in found.resources} == {paging}
    assert {resource.key for resource in found.resources} == {keys}


def test_all_lists_of_a_large_document_are_written_or_say_what_is_missing(tmp_path: Path) -> None:
    """Those below `{namespace}` or `{owner}` need partitions by hand."""
    for content in (like_stripe(9), like_github(9), like_kubernetes(9)):
        place = tmp_path / "api.json"
        place.write_text(json.dumps(content))
        written = 0
        for line in listing(str(place), "big").splitlines()[1:-2]:
            try:
                written += len(drafts_of(str(place), "big", line.split()[0], "", "none", None))
            except ConfigurationError as error:
                assert "nothing in the document fills {" in str(error)
        assert written >= 9
