"""`make new-source` writes any text of an API, an address or a person as data, never as code."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import URL

from commands.new_source import inference
from commands.new_source.__main__ import make_draft
from commands.new_source.draft import Draft
from commands.new_source.draft_files import write
from commands.new_source.literals import Call, jinja, python, read_python, rendered, yaml_text
from flows.errors import ConfigurationError
from flows.extract.auth import variable
from tests.commands.new_sources import (
    Serve,
    bare_repository,
    dbt_build,
    declared,
    load,
)
from tests.http_servers import Answer
from tests.project.tree import make_tree

CODE = "__import__('pathlib').Path('executed').touch()"
TEXTS = [
    f'a")],x={CODE},y=[("',
    f"a')],x={CODE},y=[('",
    f'"""\n{CODE}\n"""',
    f"'''\n{CODE}\n'''",
    f"\n{CODE}\n#",
    "back\\slash\\",
    "\\",
    'it\'s "quoted"',
    "{{ env_var('HOME') }}",
    "{{ 1 / 0 }}",
    "{% if %}",
    "{%- endraw -%} {{ 7 * 7 }}",
    "{# not closed",
    "#} %} }} {",
    "{{{{ 7 * 7 }}}}",
    "{name} {} {0.x}",
    "{{ doc('nothing') }}",
    "$(touch executed) `touch executed` ${HOME}",
    "%s %(x)s %d %%",
    "nul\x00 and bell\x07",
    "line\r\nbreaks\u2028and\u0085others\x0b",
    "\tand spaces ",
    "surrogate \ud800",
    "\u202eright to left\u2066",
    "שלום",
    "emoji 🎉",
    "İstanbul ß",
    "long " + "x{{ 'y' }}" * 300,
    "!!python/object/apply:os.system ['touch executed']",
    "*alias",
    "&anchor a",
    "a: b",
    "- a",
    "? a",
    "a #b",
    "[a, b",
    "| >",
    "@at %percent",
    *("null", "~", "on", "yes", "no", "true", "1e3", "0x1f", "12:30", "2024-01-01", ".inf", "="),
    *("id", "loaded_at", "_loaded_at", "select", "ORDER", "ctid", "-- comment", "/* comment", ";"),
    'a"; drop table x; --',
]
# `make test` writes every fourth into documents: quotes, line breaks, Jinja, YAML and plain words.
NUMBERS = [
    pytest.param(number, marks=[pytest.mark.long] if number % 4 else [])
    for number in range(len(TEXTS))
]


def echo(path: str) -> Answer:
    """Records at a text, with the text as a field, in a list by the text's number."""
    text = TEXTS[int(path.split("/")[1])]
    records = [{text: number, "value": "v"} for number in (1, 2)]
    body = {text: records} if is_path(text) else records
    return Answer(json.dumps(body).encode())


def is_path(text: str) -> bool:
    return "." not in text


def name_of(number: int) -> str:
    """Postgres stores neither NUL nor unpaired surrogates, so dbt builds only the others."""
    is_storable = "\x00" not in TEXTS[number] and "\ud800" not in TEXTS[number]
    return f"{'hostile' if is_storable else 'unstorable'}_{number}"


def secret(number: int) -> str:
    return TEXTS[number].replace(":", "")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository of the test's own."""
    make_tree(tmp_path)
    return tmp_path


def written(root: Path, url: str, number: int) -> dict[str, Any]:
    """Write a source with the text in every part; return the intended declaration."""
    text = TEXTS[number]
    part = quote(text, safe="", errors="replace")
    last = f"{part}/{part}?{part}={part}"
    draft = make_draft(
        name_of(number), f"{url}{number}/{last}", "", text, f"param:p:{secret(number)}"
    )
    write([draft], root)
    query = text.encode(errors="replace").decode()
    return {
        "base_url": f"{url}{number}/{part}/",
        "path": part,
        "params": {query: query},
        "records_path": text if is_path(text) else "",
        "key": [text],
        "secret": secret(number),
    }


@pytest.mark.long
def test_every_text_is_data_in_every_file(
    serve: Serve, root: Path, database: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    for number in range(len(TEXTS)):
        monkeypatch.setenv(variable(secret(number)), "a-secret-value")
    url = serve(echo).url
    wanted = {name_of(number): written(root, url, number) for number in range(len(TEXTS))}
    found = declared(root, *wanted)
    assert {name: {key: found[name][key] for key in wanted[name]} for name in wanted} == wanted

    load(root, database, *(name for name in wanted if name.startswith("hostile_")))
    dbt_build(root, database, "source:hostile_*+")
    manifest = json.loads((root / "dbt_project" / "target" / "manifest.json").read_text())
    for number, text in enumerate(TEXTS):
        [source] = nodes(manifest["sources"], name_of(number))
        [model] = nodes(manifest["nodes"], name_of(number))
        for node in (source, model):
            assert any(repr(text) in about(column) for column in node["columns"].values())
    assert not list(root.rglob("executed"))


@given(st.text() | st.sampled_from(TEXTS))
def test_a_text_reads_back_from_each_language(text: str) -> None:
    call = Call("Source", ((text,), text), {"name": [text], "params": {text: text}})
    module = f'"""About."""\nfrom a import b\nSOURCE = {python(call)}\n'
    assert read_python(module) == ({"a": {"b"}}, call)
    template = jinja(text.replace("\r", ""))
    assert rendered(template) == text.replace("\r", "")
    if text.isprintable():
        assert yaml.safe_load(yaml_text({text: [text]})) == {text: [text]}


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"source": f'"""\n{CODE}\n"""'}, id="code"),
        pytest.param({"source": '"""\nimport os\n"""'}, id="an import"),
        pytest.param({"source": "{{ 7 * 7 }}"}, id="Jinja in YAML"),
        pytest.param({"resource": "a') }}{{ 7 * 7 }}{{ source('a', 'a"}, id="Jinja in SQL"),
    ],
)
def test_what_reads_back_otherwise_is_not_kept(tmp_path: Path, wrong: dict[str, Any]) -> None:
    root = bare_repository(tmp_path)
    before = sorted(root.rglob("*"))
    columns = inference.columns([{"id": 1}], ["id"])
    draft = Draft(
        "shop", "http://x/", "orders", "orders", {}, Call("ndjson"), None, ("id",), None, columns
    )
    with pytest.raises(ConfigurationError, match="could not be written"):
        write([replace(draft, **wrong)], root)
    assert sorted(root.rglob("*")) == before
    assert len(write([draft], root)) == 4


def nodes(found: dict[str, Any], source: str) -> list[dict[str, Any]]:
    return [
        node
        for node in found.values()
        if node["fqn"][1:3] == ["staging", source] and node["resource_type"] in {"source", "model"}
    ]


def about(column: dict[str, Any]) -> str:
    return str(column["description"])
