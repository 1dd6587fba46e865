"""`make new-source FROM=…`: from an OpenAPI document to a source that loads."""

import json
import re
import shlex
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg2
import pytest
import yaml
from sqlalchemy.engine import URL

from commands.new_source import documents
from commands.new_source.api_document import drafts_of, listing
from commands.new_source.documents import MAX_DEPTH
from commands.new_source.draft_files import present_source, with_free_models, write
from commands.new_source.literals import rendered
from deployments.local.postgres import libpq
from flows.errors import ConfigurationError
from flows.source import Source, Tombstones
from tests.commands.new_sources import (
    ROOT,
    Serve,
    bare_repository,
    dbt_build,
    load,
)
from tests.commands.test_hostile_answers import NUMBERS, TEXTS
from tests.deployments.command_line import run_in
from tests.http_servers import Answer
from tests.project.tree import make_tree

SHOP = ROOT / "docs" / "examples" / "shop.openapi.yaml"
ORDERS = [
    {
        "id": n,
        "customer": "Ada",
        "total": n + 0.5,
        "updated_at": f"2026-01-0{n}T10:00:00Z",
        "discounts": [{"code": f"{n}", "amount": n}] * n,
        "refunds": None,
        "deleted": n == 3,
    }
    for n in (1, 2, 3)
]


def shop(path: str) -> Answer:
    """The API of the example: two pages of orders, their lines, and two pages of customers."""
    asked = urlsplit(path)
    query = {name: values[0] for name, values in parse_qs(asked.query).items()}
    match asked.path.strip("/").split("/"):
        case ["v1", "orders"] if query.get("limit") == "100":
            second = query.get("cursor") == "2"
            rows, following = (ORDERS[2:], None) if second else (ORDERS[:2], "2")
            return answer({"orders": rows, "next_cursor": following})
        case ["v1", "orders", order, "lines"]:
            return answer([{"number": n, "article": f"{order}-{n}"} for n in (1, 2)])
        case ["v1", "customers"]:
            return answer({"data": [{"name": f"of page {query['page']}"}], "total_pages": 2})
    return Answer(status=404)


def answer(document: Any) -> Answer:
    return Answer(json.dumps(document).encode())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty repository of the test's own."""
    return bare_repository(tmp_path)


def document(tmp_path: Path, content: Any) -> str:
    path = tmp_path / "api.json"
    path.write_text(json.dumps(content))
    return str(path)


def written(root: Path, place: str, resources: str, url: str = "", login: str = "") -> Source:
    """Write the resources of a source called shop; return what its module declares."""
    present = present_source(root, "shop")
    drafts = drafts_of(place, "shop", resources, url, login, present)
    write(with_free_models(root, drafts), root)
    found = present_source(root, "shop")
    assert found is not None
    return found


def openapi(
    schema: Any = None, params: Any = (), path: str = "/orders", **more: Any
) -> dict[str, Any]:
    """A document with one list of orders."""
    rows = {"type": "array", "items": {"type": "object", "properties": {"id": {"type": "integer"}}}}
    content = {"application/json": {"schema": schema or rows}}
    get = {"parameters": list(params), "responses": {"200": {"content": content}}}
    servers = [{"url": "https://api.example.com/v1"}]
    return {"openapi": "3.0.3", "servers": servers, "paths": {path: {"get": get}}} | more


def query(name: str, kind: str = "string", **more: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": {"type": kind, **more}}


def object_of(**fields: Any) -> dict[str, Any]:
    """The schema of an object."""
    return {"type": "object", "properties": fields}


def envelope(**fields: Any) -> dict[str, Any]:
    """The schema of a page with a list of orders and these fields."""
    order = {"type": "object", "properties": {"id": {"type": "integer"}}}
    listed = {"items": {"type": "array", "items": order}}
    return {"type": "object", "properties": listed | fields}


@pytest.mark.long
def test_from_a_document_to_tested_staging_views(
    serve: Serve, tmp_path: Path, database: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree(tmp_path)
    monkeypatch.setenv("SHOP_TOKEN", "a-secret-value")
    content = yaml.safe_load(SHOP.read_text())
    fields = content["components"]["schemas"]["Order"]["properties"]
    # Of one, the API sends only null, so its column is text; of the other, nothing.
    fields |= dict.fromkeys(["refunds", "parcels"], fields["discounts"])
    place = document(tmp_path, content)
    source = written(tmp_path, place, "orders,order_lines,customers", f"{serve(shop).url}v1")
    assert [resource.name for resource in source.resources] == [
        "orders",
        "customers",
        "order_lines",
    ]
    for _ in range(2):
        load(tmp_path, database, "shop")
    # 3 views; of raw tables and views, 2 tests of a key's field and 1 of a combination.
    # And 3 views of lists with 1 test each.
    assert "PASS=15" in dbt_build(tmp_path, database, "source:shop+")
    with closing(psycopg2.connect(libpq(database))) as connection, connection.cursor() as cursor:
        for table, count in (
            ("orders", 2),
            ("customers", 2),
            ("order_lines", 4),
            ("order_discounts", 3),
            ("order_refunds", 0),
            ("order_parcels", 0),
        ):  # the third order is deleted
            cursor.execute(f"select count(*) from staging.stg_shop__{table}")  # noqa: S608
            assert cursor.fetchall() == [(count,)]
        cursor.execute(
            "select order_id, note, paid, updated_at::text from staging.stg_shop__orders order by 1"
        )
        assert cursor.fetchall()[0] == (1, None, None, "2026-01-01 10:00:00+00")
    check_rules(tmp_path)


def check_rules(root: Path) -> None:
    """Those of ruff and sqlfluff, for all that was written."""
    staging = root / "dbt_project" / "models" / "staging" / "shop"
    for checker in (
        ["sqlfluff", "lint", "--config", str(ROOT / "pyproject.toml"), str(staging)],
        ["ruff", "check", "--config", str(ROOT / "pyproject.toml"), "flows/sources/shop.py"],
        ["ruff", "format", "--check", "--line-length=100", "flows/sources/shop.py"],
    ):
        run_in(root, "-m", *checker)


def test_descriptions_and_what_to_check_are_in_the_dbt_files(root: Path) -> None:
    written(root, str(SHOP), "orders,customers")
    folder = root / "dbt_project" / "models" / "staging" / "shop"
    orders, _, customers = yaml.safe_load((folder / "_shop__models.yml").read_text())["models"]
    assert orders["description"].startswith("Orders of all customers. ")
    about = {column["name"]: column["description"] for column in orders["columns"]}
    assert about["total"].startswith("Total with tax, in euros. ")
    assert orders["config"]["meta"]["to_check"] == [
        "the deletions: 'deleted' says by its name that a record is deleted"
    ]
    assert "no path names the field" in str(customers["config"]["meta"]["to_check"])


def test_a_list_of_objects_gets_a_model_and_a_deletion_a_word(root: Path, tmp_path: Path) -> None:
    """Also in a resource that is added; only a name tells of the deletion, so it is to check."""
    written(root, str(SHOP), "customers")
    orders = written(root, str(SHOP), "orders").resources[1]
    assert orders.deletes == Tombstones("deleted")
    folder = root / "dbt_project" / "models" / "staging" / "shop"
    models = yaml.safe_load((folder / "_shop__models.yml").read_text())["models"]
    assert [each["name"] for each in models] == [
        "stg_shop__customers",
        "stg_shop__orders",
        "stg_shop__order_discounts",
    ]
    assert "'deleted'" in str(models[1]["config"]["meta"]["to_check"])
    about = {column["name"]: column["description"] for column in models[2]["columns"]}
    assert about["code"].startswith("Code that the customer entered. ")
    sql = (folder / "stg_shop__order_discounts.sql").read_text()
    assert "to_jsonb(source.discounts)" in sql
    assert "where _deleted_at is null" in sql


def test_a_required_list_may_be_null_and_an_object_is_no_deletion(
    root: Path, tmp_path: Path
) -> None:
    content = yaml.safe_load(SHOP.read_text())
    order = content["components"]["schemas"]["Order"]
    order["required"].append("discounts")
    order["properties"]["deleted"] = {"type": "object"}
    assert written(root, document(tmp_path, content), "orders").resources[0].deletes is None
    folder = root / "dbt_project" / "models" / "staging" / "shop"
    assert "to_jsonb(source.discounts)" in (folder / "stg_shop__order_discounts.sql").read_text()


def test_a_list_does_not_take_the_model_of_a_resource(root: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(SHOP.read_text())
    fields = content["components"]["schemas"]["Order"]["properties"]
    fields["lines"] = fields.pop("discounts")
    written(root, document(tmp_path, content), "orders,order_lines")
    folder = root / "dbt_project" / "models" / "staging" / "shop"
    assert "elements_of" not in (folder / "stg_shop__order_lines.sql").read_text()
    orders = yaml.safe_load((folder / "_shop__models.yml").read_text())["models"][0]
    assert "stg_shop__order_lines is taken" in str(orders["config"]["meta"]["to_check"])


def test_a_resource_is_added_later(root: Path) -> None:
    first = written(root, str(SHOP), "orders")
    both = written(root, str(SHOP), "customers")
    assert [each.name for each in both.resources] == ["orders", "customers"]
    assert both.resources[0] == first.resources[0]
    assert both.login == first.login


def test_a_document_of_another_api_is_not_added(root: Path, tmp_path: Path) -> None:
    written(root, str(SHOP), "orders")
    place = document(tmp_path, openapi(path="/lines"))
    with pytest.raises(ConfigurationError, match="not that of the document"):
        written(root, place, "lines")
    with pytest.raises(ConfigurationError, match="Remove LOGIN"):
        written(root, place, "lines", login="bearer:x")


def test_the_commands_of_the_page_run(root: Path) -> None:
    """In its order; the list that the page shows is what the first one prints."""
    page = (ROOT / "docs" / "sources.md").read_text()
    commands = re.findall(r"^    make new-source (.* ?FROM=.*)$", page, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        words = [word.partition("=") for word in shlex.split(command)]
        options = [f"--{name.lower()}={value}" for name, _, value in words]
        done = subprocess.run(
            [sys.executable, "-m", "commands.new_source", f"--root={root}", *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "RESOURCES=" in command or done.stdout in page
    source = present_source(root, "shop")
    assert source is not None
    assert [each.name for each in source.resources] == ["orders", "order_lines", "customers"]


def test_the_list_names_what_can_be_chosen() -> None:
    found = listing(str(SHOP), "shop")
    assert "order_lines                    GET /orders/{order_id}/lines\n" in found
    assert "GET /orders/{order_id} (no list)" in found
    assert f"make new-source NAME=shop FROM={SHOP} RESOURCES=orders" in found


def test_a_document_is_requested_from_its_address(serve: Serve, root: Path) -> None:
    place = serve(lambda path: Answer(SHOP.read_bytes(), headers={"Content-Type": "text/yaml"})).url
    assert written(root, f"{place}openapi.yaml", "orders").base_url.startswith("https://api.shop")
    found = listing(f"{place}openapi.yaml?token=s3cret-of-the-url&v=1", "")
    assert f"FROM={place}openapi.yaml?v=1 RESOURCES=orders" in found
    assert "s3cret" not in found


PAGED = [
    (
        [query("offset", "integer"), query("limit", "integer", maximum=50)],
        envelope(),
        "offset",
        {"limit": 50},
    ),
    ([query("startIndex", "integer", default=1)], envelope(), "first=1", {"startIndex": 1}),
    ([query("page", "integer", minimum=0)], envelope(), "first=0", {"page": 0}),
    ([], envelope(next={"type": "string", "format": "uri"}), "_NextUrl(field='next'", {}),
    ([], envelope(links=object_of(next={"type": "string"})), "links.next", {}),
    (
        [query("after")],
        envelope(meta=object_of(next_cursor={"type": "string"})),
        "_NextToken(field='meta.next_cursor', place=Place(param='after'",
        {},
    ),
    (
        [query("cursor")],
        envelope(next={"type": "string"}, has_more={"type": "boolean"}),
        "Place(param='cursor', header='', body_field=''), more='has_more'",
        {},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("params", "schema", "paging", "first"), PAGED)
def test_paging_that_the_document_says_is_declared(
    root: Path, tmp_path: Path, params: Any, schema: Any, paging: str, first: Any
) -> None:
    place = document(tmp_path, openapi(schema, params))
    [resource] = written(root, place, "orders").resources
    assert paging in repr(resource.paging).replace("_Offset(", "offset(")
    assert resource.params == first


def test_a_link_header_is_followed(root: Path, tmp_path: Path) -> None:
    content = openapi(params=[query("page", "integer")])
    content["paths"]["/orders"]["get"]["responses"]["200"]["headers"] = {"Link": {"schema": {}}}
    [resource] = written(root, document(tmp_path, content), "orders").resources
    assert "NextLink" in repr(resource.paging)


UNCLEAR = [
    ([], envelope(), "names no paging"),
    ([query("cursor")], envelope(), "the fields that have it: none"),
    ([query("page", "integer")], envelope(), "does page count from 1?"),
    ([{**query("region"), "required": True}], envelope(), "region is required"),
    ([query("updated_since", format="date-time")], envelope(), "not in a way that is clear"),
    ([], envelope(), "the key: no path names"),
]


@pytest.mark.parametrize(("params", "schema", "said"), UNCLEAR)
def test_what_the_document_leaves_open_is_said(
    tmp_path: Path, params: Any, schema: Any, said: str
) -> None:
    place = document(tmp_path, openapi(schema, params))
    [draft] = drafts_of(place, "shop", "orders", "", "", None)
    assert any(said in text for text in draft.to_check)
    assert draft.disposition == "replace"


SCHEMES = [
    (
        {"type": "apiKey", "in": "header", "name": "X-Key"},
        "ApiKey(secret='shop-it', header='X-Key'",
    ),
    ({"type": "apiKey", "in": "query", "name": "key"}, "param='key')"),
    ({"type": "http", "scheme": "Bearer"}, "Bearer(secret='shop-it'"),
]


@pytest.mark.parametrize(("scheme", "declared"), SCHEMES)
def test_the_login_of_the_document_is_declared(
    root: Path, tmp_path: Path, scheme: Any, declared: str
) -> None:
    place = document(tmp_path, secured(scheme))
    assert declared in repr(written(root, place, "orders").login)


def secured(scheme: Any) -> dict[str, Any]:
    components = {"securitySchemes": {"it": scheme}}
    return openapi(components=components, security=[{"it": ["read", "write"]}])


CLIENT = {"flows": {"clientCredentials": {"tokenUrl": "https://x/token", "scopes": {}}}}
ASKED = [
    ({"type": "http", "scheme": "basic"}, "basic:ada:shop-it", "Basic(user='ada', secret="),
    ({"type": "oauth2", **CLIENT}, "oauth2:me:shop-it:https://x/token", "scope='read write'"),
]  # fmt: skip


@pytest.mark.parametrize(("scheme", "login", "declared"), ASKED)
def test_a_user_that_no_document_knows_is_asked_for(
    root: Path, tmp_path: Path, scheme: Any, login: str, declared: str
) -> None:
    place = document(tmp_path, secured(scheme))
    given = login.replace("ada", "USER").replace(":me:", ":CLIENT:")
    with pytest.raises(ConfigurationError, match=f"LOGIN={given}"):
        written(root, place, "orders")
    assert declared in repr(written(root, place, "orders", login=login).login)


def test_an_unknown_login_is_refused_and_can_be_left_out(root: Path, tmp_path: Path) -> None:
    place = document(tmp_path, secured({"type": "openIdConnect"}))
    with pytest.raises(ConfigurationError, match="has no counterpart"):
        written(root, place, "orders")
    assert written(root, place, "orders", login="none").login is None


def test_swagger_2_is_read(root: Path, tmp_path: Path) -> None:
    order = {"type": "object", "properties": {"id": {"type": "integer"}}}
    get = {
        "parameters": [{"name": "skip", "in": "query", "type": "integer"}],
        "produces": ["application/json"],
        "responses": {"200": {"schema": {"type": "array", "items": {"$ref": "#/definitions/O"}}}},
    }
    content = {
        "swagger": "2.0",
        "host": "api.example.com",
        "basePath": "/v2",
        "securityDefinitions": {"key": {"type": "apiKey", "in": "header", "name": "X-Key"}},
        "security": [{"key": []}],
        "definitions": {"O": order},
        "paths": {"/orders": {"get": get}, "/orders/{id}": {"get": {"responses": {}}}},
    }
    source = written(root, document(tmp_path, content), "orders")
    [resource] = source.resources
    assert source.base_url == "https://api.example.com/v2/"
    assert resource.key == ("id",)
    assert "_Offset(place=Place(param='skip'" in repr(resource.paging)
    assert "X-Key" in repr(source.login)


LOOP = {"$ref": "#/components/schemas/A"}
DEEP: Any = []
for _ in range(MAX_DEPTH + 1):
    DEEP = [DEEP]
REFUSED = [
    (openapi({"$ref": "other.yaml#/Order"}), "in another document"),
    (openapi({"$ref": "https://x/y.json"}), "in another document"),
    (openapi({"$ref": "#/nowhere"}), "names nothing"),
    (openapi(LOOP, components={"schemas": {"A": LOOP}}), "leads in a circle"),
    (openapi(servers=[{"url": "/v1"}]), "URL=https://api"),
    (openapi(servers=[{"url": "https://{region}.x/v1"}]), "URL=https://api"),
    (openapi(envelope(others={"type": "array", "items": LOOP}), components={"schemas": {
        "A": {"type": "object", "properties": {"a": {}}}}}), "orders: its response has lists"),
    ({"openapi": "4.0.0"}, "is not OpenAPI"),
    ({"deep": DEEP}, "levels deep"),
    (openapi(path="/shops/{shop}/orders"), "nothing in the document fills {shop}"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "said"), REFUSED)
def test_what_can_not_be_read_is_refused_and_nothing_is_written(
    root: Path, tmp_path: Path, content: Any, said: str
) -> None:
    if "has lists" in said:
        listed = content["paths"]["/orders"]["get"]["responses"]["200"]["content"]
        properties = listed["application/json"]["schema"]["properties"]
        properties["entries"] = properties["others"]
    before = sorted((root / "flows").rglob("*")) + sorted((root / "dbt_project").rglob("*"))
    name = "shop_orders" if "shops" in str(content) else "orders"
    with pytest.raises(ConfigurationError, match=said):
        written(root, document(tmp_path, content), name)
    after = sorted((root / "flows").rglob("*")) + sorted((root / "dbt_project").rglob("*"))
    assert after == before


def test_a_schema_that_refers_to_itself_is_read(root: Path, tmp_path: Path) -> None:
    node = {"type": "object", "properties": {"id": {"type": "integer"}, "child": LOOP}}
    rows = {"type": "array", "items": {"allOf": [LOOP, LOOP]}}
    place = document(tmp_path, openapi(rows, components={"schemas": {"A": node}}))
    assert written(root, place, "orders").resources[0].name == "orders"


def test_a_document_that_multiplies_is_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By YAML's aliases, and by references: each to the next, many times."""
    monkeypatch.setattr(documents, "MAX_VALUES", 20_000)
    monkeypatch.setattr(documents, "MAX_STEPS", 20_000)
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10)]
    aliases = tmp_path / "aliases.yaml"
    aliases.write_text("\n".join(["l0: &l0 [a]", *levels]))
    with pytest.raises(ConfigurationError, match="more than"):
        written(root, str(aliases), "orders")
    schemas: dict[str, Any] = {
        f"S{n}": {"allOf": [{"$ref": f"#/components/schemas/S{n + 1}"}] * 30} for n in range(30)
    }
    content = openapi({"$ref": "#/components/schemas/S0"}, components={"schemas": schemas})
    with pytest.raises(ConfigurationError, match="multiply by"):
        written(root, document(tmp_path, content), "orders")


def hostile(text: str, path: str) -> dict[str, Any]:
    """A document with a text wherever one may stand."""
    fields = {"id": {"type": "integer", "description": text}, text: {"description": text}}
    fields[f"{text}s"] = {"type": "array", "items": object_of(**{text: {"description": text}})}
    order = {"type": "object", "description": text, "properties": fields, "required": [text]}
    orders = {"type": "object", "properties": {"orders": {"type": "array", "items": order}}}
    content = openapi(
        {"type": "object", "properties": {text: orders}},
        [{**query(text), "required": True, "description": text}],
        path=path,
        components={"securitySchemes": {text: {"type": "apiKey", "in": "header", "name": text}}},
        security=[{text: []}],
        info={"title": text, "description": text},
    )
    content["paths"][path]["get"] |= {"summary": text, "operationId": text}
    return content


@pytest.mark.parametrize("number", NUMBERS)
def test_a_text_of_a_document_is_never_code(
    root: Path, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    text = TEXTS[number]
    content = hostile(text, "/orders")
    content["paths"]["/orders/{id}"] = {"get": {}}
    place = document(tmp_path, content)
    if "." in text or text == "":
        assert_nothing_is_run(root, place, "orders")
        return
    [resource] = written(root, place, "orders").resources
    assert getattr(resource.records, "path", "") == f"{text}.orders"
    folder = root / "dbt_project" / "models" / "staging" / "shop"
    rendered_yaml = rendered(
        yaml.safe_load((folder / "_shop__models.yml").read_text()), last_loaded_at=str
    )
    about = [column["description"] for column in rendered_yaml["models"][0]["columns"]]
    assert any(repr(text) in each for each in about)
    assert repr(f"{text}s") in rendered_yaml["models"][1]["description"]
    assert not list(root.rglob("executed"))


@pytest.mark.parametrize("number", NUMBERS)
def test_a_text_in_a_path_is_never_code(
    root: Path, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    text = TEXTS[number]
    place = document(tmp_path, hostile("plain", f"/{text}/orders"))
    assert_nothing_is_run(root, place, names_in(place)[0])
    assert len(listing(place, "shop").splitlines()) == 4


def assert_nothing_is_run(root: Path, place: str, name: str) -> None:
    """What is written can be imported; or it is refused, and nothing is written."""
    try:
        written(root, place, name)
    except ConfigurationError:
        assert not (root / "flows" / "sources" / "shop.py").exists()
    assert not list(root.rglob("executed"))


def names_in(place: str) -> list[str]:
    """The names of the endpoints in a document's list."""
    lines = listing(place, "shop").split(" offers:\n")[1].split("\nNext:")[0]
    return [line.split()[0] for line in lines.split("\n")]
