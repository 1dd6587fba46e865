"""Streams of an Airbyte low-code manifest (`type: DeclarativeSource`), as drafts of resources.

https://docs.airbyte.com/platform/connector-development/config-based/understanding-the-yaml-file/
Only words with a counterpart here are written; all others are listed by their names.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from commands.new_source import airbyte_incremental, airbyte_login, airbyte_paging, json_schema
from commands.new_source.airbyte_component import Component
from commands.new_source.airbyte_partitions import escaped, partitions_of
from commands.new_source.documents import Document, check_chosen, items, text_of
from commands.new_source.draft import Draft
from commands.new_source.inference import Column, column
from commands.new_source.json_schema import Schema, schema
from commands.new_source.literals import Call
from flows.errors import ConfigurationError
from flows.load.column_names import column_name

TYPE = "DeclarativeSource"
_SLICE = re.compile(
    r"\{\{\s*stream_(?:partition|slice)(?:\.(\w+)|\[\s*['\"](\w+)['\"]\s*\])\s*\}\}"
)


def streams(document: Document) -> dict[str, Component]:
    """The streams, by the names of their resources."""
    found = {}
    for value in items(document.root.get("streams")):
        stream = Component.of(document, value, "stream")
        name = column_name(column_name(text_of(stream.value("name")) or "stream"))
        stream.place = name
        found[name] = stream
    return found


def drafts(
    document: Document,
    source: str,
    chosen: Sequence[str],
    url: str,
    login: Call | None,
    *,
    asks_for_login: bool = True,
) -> list[Draft]:
    """The drafts of the chosen streams, parents first.

    Raises:
        ConfigurationError: when one is not in the manifest, or has no counterpart at all.
    """
    known = streams(document)
    check_chosen("manifest", chosen, known)
    ordered = sorted(chosen, key=lambda name: _is_child(known[name]))
    found: list[Draft] = []
    for name in ordered:
        found.append(_draft(name, known[name], found))
    requesters = [known[name].child("retriever").child("requester") for name in ordered]
    credentials = login
    if login is None and asks_for_login:
        credentials = _common(
            "login",
            [airbyte_login.login(source, each.child("authenticator")) for each in requesters],
        )
    own: dict[str, Any] = {
        "source": source,
        "base_url": _base_url(url, requesters),
        "login": credentials,
    }
    return [replace(draft, **own) for draft in found]


def _base_url(url: str, requesters: Sequence[Component]) -> str:
    named = _common("url_base", [text_of(each.value("url_base")) for each in requesters])
    found = url or named
    if not found.startswith(("http://", "https://")) or "{" in found:
        raise ConfigurationError(
            f"The manifest names no plain address of the API ({found!r:.100}). Name it: "
            "URL=https://api.example.com/v1"
        )
    return f"{found.rstrip('/')}/"


def _common(what: str, each: Sequence[Any]) -> Any:
    """The one value that all streams have.

    Raises:
        ConfigurationError: when they have several.
    """
    if any(value != each[0] for value in each):
        raise ConfigurationError(
            f"The streams differ in their {what}, and a source has one. Choose RESOURCES that "
            "have the same, and make a source of the others."
        )
    return each[0]


def _is_child(stream: Component) -> bool:
    router = stream.child("retriever").child("partition_router")
    return router.type == "SubstreamPartitionRouter"


def _draft(name: str, stream: Component, parents: Sequence[Draft]) -> Draft:
    stream.lost.clear()
    stream.lose_other("primary_key", "retriever", "schema_loader", "incremental_sync")
    retriever = stream.child("retriever")
    retriever.lose_other("requester", "record_selector", "paginator", "partition_router")
    requester = retriever.child("requester")
    requester.lose_other(
        "url_base", "path", "http_method", "authenticator",
        "request_parameters", "request_headers", "request_body_json",
    )  # fmt: skip
    partitions, filled, query = partitions_of(retriever.child("partition_router"), parents)
    pages = airbyte_paging.paging(retriever.child("paginator"))
    incremental = airbyte_incremental.incremental(stream.child("incremental_sync"))
    own = _key(stream)
    record = _schema(stream)
    partition_columns = tuple(each.field for each in filled)
    key = (*partition_columns, *own) if own else ()
    columns = _columns(record, key, filled, incremental.cursor)
    params = {**_texts(requester, "request_parameters"), **pages.params, **incremental.params}
    method = requester.text("http_method") or "GET"
    return Draft(
        "",
        "",
        name,
        _path(requester) + query,
        params,
        _records(retriever.child("record_selector")),
        pages.call,
        key,
        None,
        columns,
        lists=json_schema.nested_lists(record, columns) if key else (),
        method=method.upper(),
        headers=_texts(requester, "request_headers"),
        body=_texts(requester, "request_body_json") or None,
        cursor=incremental.cursor if key else None,
        partitions=partitions,
        partition_columns=partition_columns,
        disposition="" if key else "replace",
        to_check=(
            *(f"no counterpart: {each}" for each in stream.lost),
            *incremental.to_check,
            *(["the cursor: it needs a key"] if incremental.cursor and not key else ()),
            *([] if key else ["the key: the manifest names none; loads replace all rows"]),
            *([] if record.fields else ["the columns: the manifest has no schema"]),
        ),
        inner_fields=tuple(path for path, _ in json_schema.leaves(record) if "." in path),
    )


def _records(selector: Component) -> Call:
    """The records of a page. An empty path of Airbyte's may be a list or one record."""
    selector.lose_other("extractor")
    extractor = selector.child("extractor")
    extractor.lose_other("field_path")
    path = [each for each in items(extractor.node.get("field_path")) if isinstance(each, str)]
    if extractor.type not in ("DpathExtractor", "") or any("*" in each for each in path):
        raise ConfigurationError(
            f"{extractor.place} has no counterpart ({extractor.type} {'.'.join(path)}). Write the "
            "source by hand, with a `records` function: see docs/sources.md."
        )
    filled = [extractor.filled(each) for each in path]
    return Call("records_at", (".".join(filled),) if filled else ())


def _path(requester: Component) -> str:
    """The path with the placeholders of partitions."""
    parts = _SLICE.split(text_of(requester.value("path")).lstrip("/"))
    if any("{{" in literal or "{%" in literal for literal in parts[::3]):
        raise ConfigurationError(
            f"{requester.place}.path has an expression without a counterpart: "
            f"{requester.value('path')!r:.200}. Write this resource by hand."
        )
    text = escaped(parts[0])
    for dotted, quoted, literal in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        text += f"{{{column_name(dotted or quoted)}}}{escaped(literal)}"
    return text


def _texts(requester: Component, name: str) -> dict[str, Any]:
    """Parameters, headers or a body, without those that have expressions."""
    found = requester.document.resolved(requester.node.get(name))
    known: dict[str, Any] = {}
    for key, value in found.items():
        filled = requester.filled(value) if isinstance(value, str) else value
        if "{{" in str(filled) or "{%" in str(filled) or isinstance(filled, Mapping | list):
            requester.lose(f"{name}.{key}")
        elif filled is not None:
            known[key] = filled
    return known


def _key(stream: Component) -> tuple[str, ...]:
    """The fields of `primary_key`: one, or several; not those that are nested."""
    found = stream.value("primary_key")
    listed = found if isinstance(found, list) else [found] if found else []
    names = [each[0] if isinstance(each, list) and len(each) == 1 else each for each in listed]
    if not all(isinstance(each, str) for each in names):
        stream.lose("primary_key")
        return ()
    return tuple(names)


def _schema(stream: Component) -> Schema:
    loader = stream.child("schema_loader")
    if loader.node and loader.type != "InlineSchemaLoader":
        stream.lose(f"schema_loader ({loader.type})")
    return schema(stream.document, loader.node.get("schema"))


def _columns(
    record: Schema, key: Sequence[str], filled: Sequence[Column], cursor: Call | None
) -> list[Column]:
    """Those of the schema, and of the key and the cursor, which the schema may lack."""
    found = json_schema.columns(record, key, filled)
    known = {each.field for each in found}
    needed = [*key, *(cursor.args if cursor and key else ())]
    return found + [
        column(name, column_name(name), "text", "", key)
        for name in dict.fromkeys(needed)
        if name not in known and "." not in name
    ]


def listed(document: Document) -> list[str]:
    """A line for each stream."""
    paths = {
        name: text_of(stream.child("retriever").child("requester").value("path"))
        for name, stream in streams(document).items()
    }
    return [f"{name:<30} {' '.join(path.split())}" for name, path in paths.items()]


def is_manifest(document: Document) -> bool:
    """Whether a document is such a manifest."""
    return document.root.get("type") == TYPE
