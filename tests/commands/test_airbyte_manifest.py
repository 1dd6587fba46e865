"""`make new-source FROM=manifest.yaml`: what Airbyte's words are here, and which are none."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy.engine import URL

from commands.new_source.api_document import drafts_of, listing
from commands.new_source.draft import Draft
from commands.new_source.draft_files import write
from commands.new_source.literals import Call
from flows.errors import ConfigurationError
from flows.source import Cursor, Partition, RowsOf
from tests.commands.new_sources import ROOT, Serve, bare_repository, load
from tests.commands.test_hostile_answers import NUMBERS, TEXTS
from tests.commands.test_openapi import shop, written
from tests.project.tree import make_tree

SHOP = ROOT / "docs" / "examples" / "shop.airbyte.yaml"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty repository of the test's own."""
    return bare_repository(tmp_path)


def test_the_streams_are_listed() -> None:
    assert "order_lines                    /orders/" in listing(str(SHOP), "shop")


def test_words_with_a_counterpart_are_written(root: Path) -> None:
    source = written(root, str(SHOP), "order_lines,orders,events")
    orders, events, lines = source.resources
    assert (source.base_url, repr(source.login)) == (
        "https://api.shop.example/v1/",
        "Bearer(secret='shop-token', scheme='Bearer', param='')",
    )
    assert orders.key == ("id",)
    assert orders.params == {"limit": 100, "updated_since": "{since:%Y-%m-%dT%H:%M:%SZ}"}
    assert "_NextToken(field='next_cursor'" in repr(orders.paging)
    assert isinstance(orders.cursor, Cursor)
    assert lines.partitions == RowsOf("orders", {"order_id": "id"})
    assert lines.key == ("order_id", "number")
    assert events.path == "events?kind={kind}"
    assert events.partitions == (
        Partition("sale", {"kind": "sale"}),
        Partition("return", {"kind": "return"}),
    )
    assert isinstance(events.cursor, Cursor)
    assert events.cursor.format == "epoch_s"
    assert events.params == {"page": 1, "from": "{since}", "to": "{last}"}


def test_a_written_source_loads(
    serve: Serve, tmp_path: Path, database: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree(tmp_path)
    monkeypatch.setenv("SHOP_TOKEN", "a-secret-value")
    written(tmp_path, str(SHOP), "orders,order_lines", f"{serve(shop).url}v1")
    load(tmp_path, database, "shop")


def changed(tmp_path: Path, stream: Mapping[str, Any], **retriever: Any) -> list[Draft]:
    """The draft of a stream of orders with other words."""
    content: dict[str, Any] = {
        "type": "DeclarativeSource",
        "streams": [
            {
                "name": "orders",
                "primary_key": "id",
                "retriever": {
                    "requester": {"url_base": "https://x/v1", "path": "orders"},
                    "record_selector": {
                        "extractor": {"type": "DpathExtractor", "field_path": ["data"]}
                    },
                    **retriever,
                },
                **stream,
            }
        ],
    }
    place = tmp_path / "manifest.yaml"
    place.write_text(yaml.safe_dump(content))
    return drafts_of(str(place), "shop", "orders", "", "", None)


PARAM = {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "at"}


def paginator(**strategy: Any) -> dict[str, Any]:
    return {"paginator": {"page_token_option": PARAM, "pagination_strategy": strategy}}


PAGED = [
    (paginator(type="OffsetIncrement", page_size=10), "offset", {}),
    (paginator(type="PageIncrement"), "page_number", {"first": 0}),
    (
        paginator(type="CursorPagination", cursor_value="{{ response['meta']['next'] }}",
                  stop_condition="{{ not response.has_more }}"),
        "next_token", {"param": "at", "more": "has_more"},
    ),
    (
        paginator(type="CursorPagination", cursor_value="{{ headers['link']['next']['url'] }}"),
        "next_link", {},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("retriever", "name", "named"), PAGED)
def test_paginators_are_written(
    tmp_path: Path, retriever: Any, name: str, named: dict[str, Any]
) -> None:
    [draft] = changed(tmp_path, {}, **retriever)
    assert draft.paging is not None
    assert (draft.paging.name, draft.paging.named) == (name, named)


def test_a_list_of_objects_gets_a_model(root: Path, tmp_path: Path) -> None:
    lines = {"type": "array", "items": {"properties": {"article": {"type": "string"}}}}
    properties = {"id": {"type": "integer"}, "lines": lines, "is_deleted": {"type": "boolean"}}
    loader = {"type": "InlineSchemaLoader", "schema": {"properties": properties}}
    drafts = changed(tmp_path, {"schema_loader": loader})
    assert drafts[0].tombstone == Call("Tombstones", ("is_deleted",))
    assert "stg_shop__order_lines.sql" in {path.name for path in write(drafts, root)}


LOST = [
    ({"transformations": [{"type": "AddFields"}]}, {}, "orders.transformations"),
    ({}, {"record_selector": {"extractor": {"type": "DpathExtractor", "field_path": []},
          "record_filter": {"condition": "x"}}}, "record_selector.record_filter"),
    ({}, paginator(type="CustomPaginationStrategy"), "CustomPaginationStrategy"),
    ({}, paginator(type="CursorPagination", cursor_value="{{ last_record['id'] }}"),
     "CursorPagination"),
    ({"incremental_sync": {"type": "IncrementingCountCursor", "cursor_field": "id"}}, {},
     "IncrementingCountCursor"),
    ({}, {"requester": {"url_base": "https://x", "path": "a",
          "request_parameters": {"q": "{{ config['q'] }}"}}}, "request_parameters.q"),
    ({}, {"partition_router": {"type": "CustomPartitionRouter"}}, "CustomPartitionRouter"),
]  # fmt: skip


@pytest.mark.parametrize(("stream", "retriever", "said"), LOST)
def test_words_without_a_counterpart_are_listed(
    tmp_path: Path, stream: Any, retriever: Any, said: str
) -> None:
    [draft] = changed(tmp_path, stream, **retriever)
    assert any("no counterpart: orders" in each and said in each for each in draft.to_check)


REFUSED = [
    ({"requester": {"url_base": "{{ config['url'] }}", "path": "a"}}, "URL=https://api"),
    ({"requester": {"url_base": "https://x", "path": "{{ config['a'] }}"}}, "write|Write"),
    ({"record_selector": {"extractor": {"field_path": ["data", "*"]}}}, "has no counterpart"),
    ({"requester": {"url_base": "https://x", "authenticator": {
        "type": "BasicHttpAuthenticator", "password": "{{ config['key'] }}"}}},
     "LOGIN=basic:USER:shop-key"),
    ({"requester": {"url_base": "https://x", "authenticator": {"type": "JwtAuthenticator"}}},
     "JwtAuthenticator"),
]  # fmt: skip


@pytest.mark.parametrize(("retriever", "said"), REFUSED)
def test_what_nothing_could_load_is_refused(tmp_path: Path, retriever: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        changed(tmp_path, {}, **retriever)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_text_of_a_manifest_is_never_code(
    root: Path, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is data in every file, or refused before any is written."""
    monkeypatch.chdir(root)
    text = TEXTS[number]
    option = {**PARAM, "field_name": text}
    content = {
        "type": "DeclarativeSource",
        "streams": [
            {
                "name": "orders",
                "primary_key": [text],
                text: text,
                "retriever": {
                    "requester": {
                        "url_base": "https://x/v1",
                        "path": "orders",
                        "request_parameters": {text: text},
                        "request_headers": {"X-Text": text},
                        "authenticator": {"type": "ApiKeyAuthenticator", "inject_into": option},
                    },
                    "record_selector": {"extractor": {"field_path": [text]}},
                    "paginator": {
                        "page_token_option": option,
                        "pagination_strategy": {"type": "OffsetIncrement"},
                    },
                    "partition_router": {
                        "type": "ListPartitionRouter",
                        "cursor_field": "kind",
                        "values": [text],
                        "request_option": option,
                    },
                },
                "schema_loader": {
                    "type": "InlineSchemaLoader",
                    "schema": {
                        "properties": {
                            text: {"type": "string", "description": text},
                            f"{text}s": {"items": {"properties": {text: {"description": text}}}},
                        }
                    },
                },
            }
        ],
    }
    place = tmp_path / "manifest.yaml"
    place.write_text(yaml.safe_dump(content))
    try:
        [resource] = written(root, str(place), "orders").resources
    except ConfigurationError:
        assert not (root / "flows" / "sources" / "shop.py").exists()
    else:
        assert resource.key == ("kind", text)
        assert not isinstance(resource.partitions, RowsOf)
        assert resource.partitions[0].values == {"kind": text}
    assert not list(root.rglob("executed"))
