"""`make new-source` writes any text of an API, an address or a person as data, never as code."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from conftest import Answer, Server
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import URL

from commands.new_source import inference
from commands.new_source.__main__ import make_draft
from commands.new_source.literals import Call, jinja, python, read_python, rendered, yaml_text
from commands.new_source.templates import Draft, write
from deployments.local.postgres import libpq
from flows.errors import ConfigurationError
from flows.extract.auth import variable
from tests.deployments.command_line import run_in

ROOT = Path(__file__).resolve().parents[2]
Serve = Callable[[Callable[[str], Answer]], Server]

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

# Reads what the written modules declare, and loads it.
DECLARED = """
import json, sys, psycopg2
from functools import partial
from flows import sources
from flows.extract.client import Client
from flows.extract.fetch import first_request, read_pages
from flows.load.loader import load

connection = psycopg2.connect(sys.argv[1])
declared = {}
for name in sources.names():
    if not name.startswith(("hostile_", "unstorable_")):
        continue
    source = sources.find(name)
    (resource,) = source.resources
    (partition,) = resource.partitions
    declared[name] = [source.base_url, resource.path.format(), dict(resource.params),
                      getattr(resource.records, "path", None), resource.key, source.login.secret]
    if name.startswith("unstorable_"):
        continue
    with Client(source) as client:
        load(connection, name, resource, partition,
             partial(read_pages, client, source, resource, partition))
connection.close()
print(json.dumps(declared))
"""


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
    shutil.copytree(ROOT / "flows", tmp_path / "flows")
    shutil.copytree(
        ROOT / "dbt_project", tmp_path / "dbt_project", ignore=shutil.ignore_patterns("target")
    )
    return tmp_path


def written(root: Path, url: str, number: int) -> list[Any]:
    """Write a source with the text in every part; return the intended declaration."""
    text = TEXTS[number]
    part = quote(text, safe="", errors="replace")
    last = f"{part}/{part}?{part}={part}"
    draft = make_draft(
        name_of(number), f"{url}{number}/{last}", "", text, f"param:p:{secret(number)}"
    )
    write(draft, root)
    query = text.encode(errors="replace").decode()
    return [
        f"{url}{number}/{part}/",
        part,
        {query: query},
        text if is_path(text) else "",
        [text],
        secret(number),
    ]


def test_every_text_is_data_in_every_file(
    serve: Serve, root: Path, database: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    for number in range(len(TEXTS)):
        monkeypatch.setenv(variable(secret(number)), "a-secret-value")
    url = serve(echo).url
    wanted = {name_of(number): written(root, url, number) for number in range(len(TEXTS))}
    assert json.loads(run_in(root, "-c", DECLARED, libpq(database))) == wanted

    manifest = built(root, database)
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
def test_what_reads_back_otherwise_is_not_kept(root: Path, wrong: dict[str, Any]) -> None:
    before = sorted(root.rglob("*"))
    columns = inference.columns([{"id": 1}], ["id"])
    draft = Draft(
        "shop", "http://x/", "orders", "orders", {}, Call("ndjson"), None, ("id",), None, columns
    )
    with pytest.raises(ConfigurationError, match="could not be written"):
        write(replace(draft, **wrong), root)
    assert sorted(root.rglob("*")) == before
    assert len(write(draft, root)) == 4


def nodes(found: dict[str, Any], source: str) -> list[dict[str, Any]]:
    return [
        node
        for node in found.values()
        if node["fqn"][1:3] == ["staging", source] and node["resource_type"] in {"source", "model"}
    ]


def about(column: dict[str, Any]) -> str:
    return str(column["description"])


def built(root: Path, database: URL) -> dict[str, Any]:
    """The manifest, once dbt has built and tested the staging views."""
    environment = {
        "WAREHOUSE_HOST": str(database.host or database.query["host"]),
        "WAREHOUSE_PORT": str(database.port or 5432),
        "WAREHOUSE_USER": str(database.username),
        "WAREHOUSE_DATABASE": str(database.database),
        "DBT_ENV_SECRET_WAREHOUSE_PASSWORD": database.password or "",
    }
    folder = ["--project-dir", "dbt_project", "--profiles-dir", "dbt_project"]
    dbt = ["-c", "from dbt.cli.main import cli; cli()", "build", "--select", "source:hostile_*+"]
    run_in(root, *dbt, *folder, **environment)
    found = json.loads((root / "dbt_project" / "target" / "manifest.json").read_text())
    assert isinstance(found, dict)
    return found
