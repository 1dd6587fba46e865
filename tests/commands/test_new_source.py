"""`make new-source` and `make preview`: from an API's address to a tested staging view."""

import json
import re
import shutil
import subprocess
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import yaml
from conftest import TREE
from sqlalchemy.engine import URL

from commands.new_source import first_load, inference
from commands.new_source.__main__ import make_draft
from commands.new_source.draft import Draft
from commands.new_source.literals import Call
from commands.preview import described, first_page
from deployments.local.postgres import libpq
from flows.source import Partition
from tests.commands.new_sources import (
    ROOT,
    Serve,
    bare_repository,
    dbt_build,
    load,
    new_source,
    new_source_in,
    written_source,
)
from tests.deployments.command_line import run_in
from tests.http_servers import Answer
from tests.project.tree import PROJECT, make_tree

# Names that a staging model gives to other columns, and one that SQL reserves.
CLASHING = ("issue_id", "loaded_at", "null", "Null", "issue_null", "issue_order")
DAY = "2026-01-02T03:04:05Z"


def issue(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "title": f"Issue {number}: # of it",
        "order": number,
        "totalPrice": number + 0.5,
        "open": number > 1,
        "createdAt": f"2024-01-0{number}T10:00:00Z",
        "due: on": "2024-02-01" if number > 1 else None,
        "user": {"login": "a"},
        "labels": [{"id": n, "issue_id": 7, "it's": f"{n}"} for n in range(1, number)],
        "deleted": number == 4,
        **dict.fromkeys(CLASHING, "x"),
    }


def tracker(path: str) -> Answer:
    """Two pages of issues, linked by the Link header."""
    second = "page=2" in path
    body = json.dumps([issue(n) for n in ((4,) if second else (1, 2, 3))]).encode()
    link = {} if second else {"Link": f'<{path}&page=2>; rel="next", </>; rel="first"'}
    return Answer(body, headers={"Content-Type": "application/json"} | link)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository of the test's own, with one source."""
    root = bare_repository(tmp_path)
    shutil.copy(PROJECT / "sources" / "market.py", root / "flows" / "sources")
    return root


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A repository of the test's own, for dbt."""
    make_tree(tmp_path)
    return tmp_path


def tracked(serve: Serve, root: Path) -> "subprocess.CompletedProcess[str]":
    """Write a source that loads the tracker's issues."""
    made = new_source(root, f"{serve(tracker).url}v1/issues?state=all")
    assert made.returncode == 0, made.stdout
    return made


def test_from_an_address_to_a_tested_staging_view(
    serve: Serve, copied: Path, database: URL
) -> None:
    root = copied
    made = tracked(serve, root)
    assert "NOT FOUND" not in made.stdout
    load(root, database, "tracker")
    assert "PASS=7" in dbt_build(root, database, "source:tracker+")
    with closing(psycopg2.connect(libpq(database))) as connection, connection.cursor() as cursor:
        cursor.execute(
            "select id, issue_order_2, total_price, created_at::text, due_on::text"
            " from staging.stg_tracker__issues order by 1"
        )
        assert cursor.fetchall()[1] == (2, 2, 2.5, "2024-01-02 10:00:00+00", "2024-02-01")
        assert cursor.rowcount == 3, "the fourth is deleted"
        cursor.execute(
            "select id, label_position, label_id, issue_id, it_s"
            " from staging.stg_tracker__issue_labels order by 1, 2"
        )
        assert cursor.fetchall() == [(2, 1, 1, 7, "1"), (3, 1, 1, 7, "1"), (3, 2, 2, 7, "2")]


def test_what_is_written_keeps_the_rules(serve: Serve, root: Path) -> None:
    """sqlfluff's, ruff's, and the description of every column of both tables."""
    tracked(serve, root)
    staging = root / "dbt_project" / "models" / "staging" / "tracker"
    for checker in (
        ["sqlfluff", "lint", "--config", str(ROOT / "pyproject.toml"), str(staging)],
        ["ruff", "check", "--config", str(ROOT / "pyproject.toml"), "flows/sources/tracker.py"],
        ["ruff", "format", "--check", "--line-length=100", "flows/sources/tracker.py"],
    ):
        run_in(root, "-m", *checker)
    [source] = yaml.safe_load((staging / "_tracker__sources.yml").read_text())["sources"]
    names = [column["name"] for column in source["tables"][0]["columns"]]
    assert {"id", "order", "total_price", "due_on", "_load_id"} < set(names)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param({"name": "My API"}, "lower case letters", id="a name no schema can have"),
        pytest.param({"key": "uuid"}, "there is no 'uuid'. There are: id, title", id="wrong key"),
        pytest.param({"records": "data"}, "at 'data', but there is list", id="wrong path"),
        pytest.param({"url": "ftp://x/y"}, "must name one resource", id="no HTTP address"),
        pytest.param({"url": "http://127.0.0.1:9/"}, "must name one resource", id="no resource"),
        pytest.param({"login": "token"}, "must be bearer:SECRET", id="unknown login"),
        pytest.param({"login": "bearer:no-such"}, "set NO_SUCH", id="a secret that is missing"),
        pytest.param({"name": "market"}, "exists already", id="a source there is"),
        pytest.param({"name": "find"}, "'find' is reserved", id="a name of the package's own"),
        pytest.param({"name": "class"}, "'class' is reserved", id="a word of Python's"),
        pytest.param({"name": "shop__audit"}, "Choose another NAME", id="a schema of dbt's"),
        pytest.param({"url": "http://x/a\nb"}, "Percent-encode it", id="a line break"),
        pytest.param({"url": "http://[x/y"}, "The URL is invalid", id="an invalid address"),
        pytest.param({"url": "http://x/a//b"}, "must name one resource", id="an empty segment"),
    ],
)
def test_invalid_input_is_refused_and_nothing_is_written(
    serve: Serve, root: Path, options: dict[str, str], said: str
) -> None:
    shutil.copy(TREE / "flows" / "sources" / "market.py", root / "flows" / "sources")
    before = sorted(root.rglob("*"))
    made = new_source(root, **{"url": f"{serve(tracker).url}v1/issues?a=b"} | options)
    assert made.returncode == 1
    assert made.stdout.startswith("FAILED: ")
    assert said in made.stdout
    assert sorted(root.rglob("*")) == before


SECRET = "s3cret-of-the-url"  # noqa: S105 (of no real API)


@pytest.mark.parametrize(
    ("before", "query", "login"),
    [
        ("", f"api_key={SECRET}", "ApiKey(secret='tracker-api-key', header='', param='api_key')"),
        ("", f"apiKey={SECRET}", "ApiKey(secret='tracker-apikey', header='', param='apiKey')"),
        ("", f"key={SECRET}", "ApiKey(secret='tracker-key', header='', param='key')"),
        ("", f"access_token={SECRET}", "param='access_token')"),
        ("", f"$$app_token={SECRET}", "ApiKey(secret='tracker-app-token'"),
        (f"me:{SECRET}@", "", "Basic(user='me', secret='tracker-password', param='')"),
    ],
)
def test_a_login_in_the_url_is_declared_and_written_nowhere(
    serve: Serve, root: Path, before: str, query: str, login: str
) -> None:
    server = serve(tracker)
    before_url = server.url.replace("//", f"//{before}")
    made = new_source(root, f"{before_url}v1/issues?state=all&{query}&page_token=1")
    assert made.returncode == 0, made.stdout
    assert SECRET not in made.stdout
    assert f"Set TRACKER_{'PASSWORD' if before else ''}" in made.stdout
    assert not [path for path in root.rglob("*tracker*") if SECRET in path_text(path)]
    source = written_source(root)
    [issues] = source.resources
    assert (source.base_url, issues.path) == (f"{server.url}v1/", "issues")
    assert issues.params == {"state": "all", "page_token": "1"}
    assert login in repr(source.login)


def records_of(root: Path) -> str:
    [resource] = written_source(root).resources
    return repr(resource.records)


def path_text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def test_the_login_of_the_url_was_used(serve: Serve, root: Path) -> None:
    def guarded(path: str) -> Answer:
        return tracker(path) if f"token={SECRET}" in path else Answer(status=401)

    made = new_source(root, f"{serve(guarded).url}v1/issues?token={SECRET}")
    assert made.returncode == 0, made.stdout


def test_a_login_that_the_api_returns_as_a_field_is_not_written(serve: Serve, root: Path) -> None:
    before = sorted(root.rglob("*"))
    url = serve(lambda _: Answer(json.dumps([{"id": 1, f"of {SECRET}": 2}]).encode())).url
    made = new_source(root, f"{url}v1/issues?token={SECRET}")
    assert made.returncode == 1
    assert "the login as the name of a field" in made.stdout
    assert SECRET not in made.stdout
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize(
    ("url", "login", "said"),
    [
        ("http://me@127.0.0.1:9/a", "", "a user without a password"),
        (f"http://127.0.0.1:9/a?token={SECRET}&key=other", "", "contains several logins"),
        (f"http://127.0.0.1:9/a?token={SECRET}&token=other", "", "contains several logins"),
        (f"http://me:other@127.0.0.1:9/a?token={SECRET}", "", "contains several logins"),
        (f"http://127.0.0.1:9/a?token={SECRET}", "bearer:x", "LOGIN names another one"),
        (f"http://127.0.0.1:9/?token={SECRET}", "", "URL=http://127.0.0.1:9/ must name"),
        (f"http://me:{SECRET}@127.0.0.1:no/a", "", "The URL is invalid"),
        (f"http://127.0.0.1:9/a?\n&token={SECRET}", "", "Percent-encode it"),
    ],
)
def test_an_undeclarable_login_in_the_url_is_refused_and_not_shown(
    root: Path, url: str, login: str, said: str
) -> None:
    made = new_source(root, url, login=login)
    assert made.returncode == 1
    assert said in made.stdout
    assert SECRET not in made.stdout


@pytest.mark.parametrize(
    ("query", "path", "params"),
    [
        ('where={"a":"b"}', "issues", {"where": '{"a":"b"}'}),
        ("a=%0A%5C&b=1%202+3", "issues", {"a": "\n\\", "b": "1 2 3"}),
        ("a=&&b=1", "issues", {"a": "", "b": "1"}),
        ("a;b=1", "issues?a;b=1", {}),
        ("id=1&id=2&id=1&b=3", "issues", {"id": ["1", "2", "1"], "b": "3"}),
        ("id[]=1&id%5B%5D=%22%0A&b=3", "issues", {"id[]": ["1", '"\n'], "b": "3"}),
        ("id=1&b=3&id=2", "issues?id=1&b=3&id=2", {}),  # a list would change the order
        ("flag&b={x}", "issues?flag&b={{x}}", {}),
        ("a=%FF", "issues?a=%FF", {}),
        ("a%C3=%A9", "issues?a%C3=%A9", {}),
    ],
)
def test_a_query_is_declared_as_it_was_asked(
    serve: Serve, root: Path, query: str, path: str, params: dict[str, str | list[str]]
) -> None:
    asked = []

    def listen(path: str) -> Answer:
        asked.append(path)
        return Answer(b'[{"id": 1}]')

    made = new_source(root, f"{serve(listen).url}v1/issues?{query}")
    assert made.returncode == 0, made.stdout
    source = written_source(root)
    [issues] = source.resources
    assert (issues.path, issues.params) == (path, params)
    first_page(source, issues, Partition())
    assert asked[1] == asked[0]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "returned no records"),
        ([1, 2], "returned 1 as a record"),
        ([{}], "returned {} as a record"),
        ({"id": 1, "data": {"items": []}}, "an empty list in the response: 'data.items'"),
        ({"items": {"a": {"x": 1}, "b": {"x": 2}}}, "objects by name under 'items'"),
        ({"a": {"x": 1}, "b": {"x": 2}}, "objects by name under the response"),
        ({"items": {"17": {"x": 1}}}, "objects by name under 'items'"),
        ({"items": {"a": {"x": 1}, "b": {"x": 2, "y": 3}}}, "objects by name under 'items'"),
        ({"17": {"x": 1}}, "objects by name under the response"),
        ({"items": []}, "an empty list in the response: 'items'"),
        ({"items": {}, "total": 0}, "nothing at 'items' in the response"),
        ({"data": {"Records": None}}, "nothing at 'data.Records' in the response"),
        ({"columns": ["a"], "rows": [[1]]}, "in the list 'rows' of the response has fields"),
        ({"items": [{"id": 1}, None]}, "in the list 'items' of the response has fields"),
        ({"items": [], "errors": [{"x": 1}]}, "may be at 'items'"),
        ({"items": {"17": {"x": 1}}, "links": [{"rel": "self"}]}, "may be at 'items'"),
    ],
)
def test_ambiguous_records_are_refused_with_a_remedy(
    serve: Serve, root: Path, document: Any, said: str
) -> None:
    url = serve(lambda _: Answer(json.dumps(document).encode())).url
    made = new_source(root, f"{url}v1/issues")
    assert made.returncode == 1
    assert said in made.stdout
    if isinstance(document, dict):
        made = new_source(root, f"{url}v1/issues", records=".")
        assert made.returncode == 0, made.stdout
        assert records_of(root) == "RecordAt(path='')"


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({"id": 1, "address": {"street": "x"}, "tags": ["a"]}, "RecordAt(path='')"),
        ({"id": 1, "value": 2, "home": {"geo": {"lat": 1}}}, "RecordAt(path='')"),
        ({"items": [{"id": 1}], "errors": [], "next": None}, "RecordsAt(path='items'"),
        ({"orders": [{"id": 1}], "meta": {}, "errors": []}, "RecordsAt(path='orders'"),
        ({"data": {"orders": [{"id": 1}], "errors": None}}, "RecordsAt(path='data.orders'"),
        ({"lat": 1, "daily": {"day": ["a", "b"], "rain": [0, 2]}}, "ColumnsAt(path='daily'"),
        ({"time": [1, 2], "temp": [3, None]}, "ColumnsAt(path=''"),
        ({"id": 1, "tags": ["a", "b"], "codes": [1, 2]}, "RecordAt(path='')"),
        ({"id": 1, "home": {"lat": [1], "lon": [2]}}, "RecordAt(path='')"),
    ],
)
def test_records_that_can_be_told_are_found(
    serve: Serve, root: Path, document: Any, found: str
) -> None:
    url = serve(lambda _: Answer(json.dumps(document).encode())).url
    made = new_source(root, f"{url}v1/issues")
    assert made.returncode == 0, made.stdout
    assert records_of(root).startswith(found)


@pytest.mark.parametrize(
    ("body", "kind", "said", "records"),
    [
        ("id;name\n1;a\n", "text/plain", 'RECORDS=";"', ";"),
        ("id;price\n1;1,5\n", "text/csv", 'RECORDS=";"', ";"),
        ("id\tname\n1\ta\n", "text/csv", r'RECORDS="\t"', r"\t"),
        ("id\tname\n1\ta\n", "text/tab-separated-values", r'RECORDS="\t"', r"\t"),
        ("first, last;age\na, b;3\n", "text/csv", "may be ',' or ';'", ";"),
        ("id,name\n1,a\n", "application/octet-stream", 'RECORDS=","', ","),
    ],
)
def test_a_delimiter_that_can_not_be_told_is_asked_for(
    serve: Serve, root: Path, body: str, kind: str, said: str, records: str
) -> None:
    url = serve(lambda _: Answer(body.encode(), headers={"Content-Type": kind})).url
    made = new_source(root, f"{url}v1/issues")
    assert made.returncode == 1, made.stdout
    assert said in made.stdout
    made = new_source(root, f"{url}v1/issues", records=records)
    assert made.returncode == 0, made.stdout
    delimiter = records.replace(r"\t", "\t")
    assert f"delimiter={delimiter!r}" in records_of(root)


def test_the_delimiter_of_a_csv_can_be_named(serve: Serve, root: Path) -> None:
    body, kind = b"id;name\n1;a\n2;b\n", {"Content-Type": "text/csv"}
    url = serve(lambda _: Answer(body, headers=kind)).url
    made = new_source(root, f"{url}v1/issues")
    assert "FAILED" in made.stdout
    assert "';'" in made.stdout
    made = new_source(root, f"{url}v1/issues", records=";")
    assert made.returncode == 0, made.stdout
    assert "delimiter=';'" in records_of(root)


def test_the_columns_of_a_staging_model_have_a_name_each() -> None:
    fields = ("id", "order_id", "loaded_at", "order_loaded_at", "select", "a" * 63, "数据")
    columns = inference.columns([dict.fromkeys(fields, 1)], ["id"])
    names = inference.staged_names(columns, "order")
    assert inference.staged_names(columns[:1], "order") == {"id": "order_id"}
    assert names["order_id"] == "order_id"
    assert names["select"] == "order_select"
    assert len({*names.values(), "loaded_at"}) == len(fields) + 1
    assert all(len(name.encode()) <= 63 for name in names.values())


def test_neither_make_nor_the_shell_expands_a_value(tmp_path: Path) -> None:
    """OData's `$filter` arrives, and nothing is executed."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    python.chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    values = {
        "NAME": "$(shell touch executed)",
        "URL": "https://x/a?$filter=b eq 'c'&$$top=1",
        "RECORDS": '"; touch executed; "',
        "KEY": "`touch executed`",
        "LOGIN": "$(touch executed)$HOME",
        "BODY": '{"a": "$(touch executed)"}',
        "FROM": "$(shell touch executed).json",
        "RESOURCES": "a,`touch executed`",
    }
    done = subprocess.run(
        ["make", "--old-file=install", "new-source", f"BIN={tmp_path}"]
        + [f"{name}={value}" for name, value in values.items()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    wanted = [*(f"--{name.lower()}={value}" for name, value in values.items()), "--load"]
    # A make started by another make prints the folder that it enters.
    assert [line for line in done.stdout.splitlines() if line.startswith("--")] == wanted
    assert not (tmp_path / "executed").exists()


@pytest.mark.long
def test_a_first_page_is_loaded_and_its_view_is_tested(serve: Serve, copied: Path) -> None:
    url = f"{serve(tracker).url}v1/issues?token={SECRET}"
    words = (f"--name=tracker --url={url} --root={copied} --load").split()
    printed = run_in(copied, "-m", "commands.new_source", *words)
    assert "  flows/sources/tracker.py\n" in printed
    assert re.search(r"tracker\.issues +3 +3 +0", printed)
    assert re.search(r" \d+ passed, 0 warned, 0 failed, 0 skipped", printed)
    assert "'make run-local SOURCE=tracker' reads all" in printed
    assert printed.count("\n") <= 40, printed


def test_personal_fields_are_named_before_anything_is_stored(serve: Serve, root: Path) -> None:
    rows = [
        {
            "id": 1,
            "billing_email": "a@b.example",
            "phone": "1",
            "birthday": DAY,
            "email_sent_at": DAY,
            "owner": {"email": "c@d.example", "id": 2},
            "members": [{"lastName": "Ä"}],
        }
    ]
    url = f"{serve(lambda _: Answer(json.dumps(rows).encode())).url}contacts"
    assert new_source(root, url).returncode == 0
    draft = make_draft("tracker", url, "", "", "")
    said: list[str] = []
    assert first_load.load(root, [draft], {}, said.append) == 0
    assert said == [
        "\nNot loaded yet: contacts.billing_email, contacts.phone, contacts.birthday, "
        "contacts.owner.email, contacts.members.lastName may be personal. Declare in "
        "flows/sources/tracker.py what is stored of them, e.g. "
        'personal={"email": masked()} (docs/sources.md, Personal data), or leave them as they '
        "are; then make run-local SOURCE=tracker LIMIT=1"
    ]


def test_children_are_not_loaded_without_their_parent(root: Path) -> None:
    """There may be no row of it yet, and then a load of nothing would pass for a success."""
    of_issues = Call("RowsOf", ("issues", {"issue_id": "id"}))
    issues = Draft("tracker", "", "issues", "", {}, Call("record_at"), None, (), None, [])
    labels = replace(issues, resource="labels", partitions=of_issues)
    said: list[str] = []
    assert first_load.load(root, [labels], {}, said.append) == 0
    assert said == [
        "\nNot loaded yet: each row of issues has its own labels, which are loaded together with "
        "it. Check their paging in flows/sources/tracker.py; then make run-local SOURCE=tracker"
    ]


def test_a_token_and_a_time_of_change_are_named(serve: Serve, root: Path) -> None:
    """No response tells the parameters that ask for the next page, or for what changed."""
    page = {"data": [{"id": 1, "updated_at": DAY}], "meta": {"next_cursor": "abc"}}
    made = new_source(root, f"{serve(lambda _: Answer(json.dumps(page).encode())).url}tickets")
    assert 'paging=next_token("meta.next_cursor", param="…")' in made.stdout
    assert "a cursor, so every load reads all" in made.stdout
    page["meta"] = {}
    url = serve(lambda _: Answer(json.dumps(page).encode())).url
    made = new_source(root, f"{url}users", name="other")
    assert "a cursor, so every load reads all" in made.stdout, made.stdout
    assert "since 'updated_at'" in made.stdout


def test_a_number_of_pages_and_an_epoch_of_change_are_named(serve: Serve, root: Path) -> None:
    page = {"data": [{"id": 1, "updated_at": 1750000000}], "page": 1, "total_pages": 3}
    made = new_source(root, f"{serve(lambda _: Answer(json.dumps(page).encode())).url}tickets")
    assert 'paging=page_number("…", total_pages="total_pages")' in made.stdout, made.stdout
    assert "since 'updated_at'" in made.stdout


def test_a_module_written_by_hand_has_no_deployment_and_that_is_said(
    serve: Serve, root: Path
) -> None:
    """A login that LOGIN can't declare begins with such a module."""
    url = serve(tracker).url
    module = root / "flows" / "sources" / "tracker.py"
    module.parent.mkdir(parents=True, exist_ok=True)
    module.write_text(
        "from flows.source import Source\n\n"
        f'SOURCE = Source(name="tracker", base_url="{url}v1/", resources=())\n'
    )
    made = new_source(root, f"{url}v1/issues")
    assert made.returncode == 0, made.stdout
    assert "add to prefect.yaml, under deployments" in made.stdout
    assert "\n  - name: tracker\n" in made.stdout


def test_what_is_missing_for_a_first_load_is_said(
    serve: Serve, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The secret is in the file that every command reads; without it, nothing is started."""
    monkeypatch.setenv("SHOP_TOKEN", "")
    monkeypatch.delenv("SHOP_TOKEN")
    (root / ".env").write_text("SHOP_TOKEN=a-secret-value\n")
    server = serve(tracker)
    made = new_source(root, f"{server.url}v1/issues", login="bearer:shop-token")
    assert made.returncode == 0, made.stdout
    assert server.asked[0].headers["Authorization"] == "Bearer a-secret-value"
    monkeypatch.delenv("SHOP_TOKEN")
    said: list[str] = []
    issues = Draft("tracker", "", "issues", "", {}, Call("record_at"), None, (), None, [])
    assert first_load.load(root, [issues], {}, said.append) == 0
    assert said == [
        "\nNot loaded yet: write SHOP_TOKEN=… to .env, then make run-local SOURCE=tracker LIMIT=1"
    ]
    replaced = replace(issues, disposition="replace", paging=Call("next_link"))
    first_load.load(root, [replaced], {"SHOP_TOKEN": "x"}, said.append)
    assert "each load replaces the whole table" in said[1]


INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from commands.new_source import __main__ as new_source

step, renamed = int(sys.argv.pop(1)), Path.rename

def rename(path, target):
    global step
    if not step:
        os.kill(os.getpid(), signal.SIGKILL)
    step -= 1
    return renamed(path, target)

Path.rename = rename
new_source.main()
"""
FULL = """
import resource, sys
from commands.new_source import __main__ as new_source

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
sys.exit(new_source.main())
"""


def test_what_a_killed_run_left_is_removed_by_the_next(serve: Serve, root: Path) -> None:
    """At every step: `test_new_deployment.py`."""
    url = f"{serve(tracker).url}v1/issues"
    killed = new_source_in(root, url, INTERRUPTED, "3")
    assert killed.returncode == -9
    assert not (root / "flows" / "sources" / "tracker.py").exists()
    made = new_source(root, url, name="other")
    assert made.returncode == 0, made.stdout
    assert not list(root.rglob("*tracker*"))
    assert not (root / ".new-source").exists()


def test_a_disk_that_is_full_leaves_nothing(serve: Serve, root: Path) -> None:
    """The module fits in 900 bytes, and the dbt source does not."""
    before = sorted(root.rglob("*"))
    made = new_source_in(root, f"{serve(tracker).url}v1/issues", FULL, "900")
    assert made.returncode == 1, made.stdout
    assert "None of them is left" in made.stdout
    assert sorted(root.rglob("*")) == before


def test_a_preview_shows_columns_and_records_and_writes_nothing(serve: Serve, root: Path) -> None:
    tracked(serve, root)
    before = sorted(root.rglob("*.yml"))
    source = written_source(root)
    [issues] = source.resources
    page = first_page(source, issues, Partition())
    shown = described(source, issues, page, Partition())
    assert "3 records; next: http://" in shown
    assert "  total_price                     double precision    1.5\n" in shown
    assert '"title": "Issue 1: # of it"' in shown
    assert sorted(root.rglob("*.yml")) == before

    issues = replace(issues, map_record=lambda record: {"id": 1} if record["id"] == 1 else None)
    shown = described(source, issues, page, Partition())
    assert "map_record omits 2 of them" in shown
    assert '  {"id": 1}' in shown
