"""Resources are added to modules and YAML files that an owner has written, and nothing else."""

import ast
import re

import pytest
import yaml

from commands.new_source.literals import Call
from commands.new_source.module_additions import extended
from commands.new_source.yaml_lists import appended
from flows.errors import ConfigurationError

ADDED = Call(
    "Resource", (), {"name": "lines", "path": "lines", "records": Call("records_at", ("items",))}
)
HEAD = '''"""The shop's API: café."""

from flows.extract.selectors import record_at
from flows.source import Resource, Source  # ours

'''
MODULES = {
    "one to a line": """
SOURCE = Source(
    name="shop",
    base_url="https://x/",
    resources=(
        Resource("orders", "orders", record_at()),  # the first, (really)
        # no more, yet
    ),
)
""",
    "without a comma": """
SOURCE = Source(
    "shop",
    "https://x/",
    (
        Resource("orders", "café", record_at()),
        Resource("more", "more", record_at())  # the last
    ),
)
""",
    "on one line": """
orders = Resource("orders", "orders", record_at())
SOURCE = Source("shop", "https://x/", resources=(orders,), keep_ledger_days=9)
""",
    "empty": """
SOURCE = Source("shop", "https://x/", resources=())
""",
    "a name": """
ALL = (Resource("orders", "orders", record_at()),)
SOURCE: Source = Source(name="shop", base_url="https://x/", resources=ALL)
""",
    "an expression": '''
ALL = [Resource("orders", "orders", record_at())]
SOURCE = Source(
    name="shop",
    base_url="https://x/",
    resources=tuple(ALL) if ALL else (),
)

def later():
    """Behind the source."""
''',
}


@pytest.mark.parametrize("text", MODULES.values(), ids=MODULES)
def test_a_resource_is_added_and_all_else_stays(text: str) -> None:
    before = HEAD + text
    after = extended(before, [ADDED])
    scope: dict[str, object] = {}
    exec(compile(after, "shop.py", "exec"), scope)  # noqa: S102 (the module above)
    names = [each.name for each in scope["SOURCE"].resources]  # type: ignore[attr-defined]
    assert names == [*re.findall(r'Resource\("(\w+)"', text), "lines"]
    kept = [line for line in before.splitlines() if "#" in line or "record_at()" in line]
    plain = after.replace(",", "")
    assert all(line.replace(",", "").strip(" )") in plain for line in kept)
    assert "import record_at, records_at\n" in after


OTHERS = {
    "SOURCE = make()": "has no SOURCE = Source",
    "SOURCE = Source(**ARGUMENTS)": "no argument `resources`",
    "SOURCE = Source(resources=(a, # one\n  b))": "make format",
    "def records_at(): pass\nSOURCE = Source(resources=())": "'records_at' is not that of",
    "from mine import Resource\nSOURCE = Source(resources=())": "'Resource' is not that of",
    "SOURCE = (": "can't be added",
}


@pytest.mark.parametrize(("text", "said"), OTHERS.items())
def test_a_module_that_is_written_otherwise_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        extended(f"{text}\n", [ADDED])


def test_imports_keep_their_order_and_aliases() -> None:
    text = (
        '"""Shop."""\n\nimport json\nfrom datetime import UTC\n\n'
        "from flows.source import Resource as R, Source\n\nSOURCE = Source(resources=())\n"
    )
    call = Call("Resource", (), {"cursor": Call("Cursor", (), {"step": Call("timedelta")})})
    after = extended(text, [call])
    assert "from datetime import UTC, timedelta\n" in after
    assert "from flows.source import Cursor, Resource, Resource as R, Source\n" in after
    assert ast.parse(after)


YAML = """# ours
models:
  # the first
  - name: orders
    description: >
      Folded
      text.

    columns: [{name: a}]  # in a line

# behind
other: 1
"""


def test_an_item_is_added_to_a_list_of_yaml_and_all_else_stays() -> None:
    after = appended(YAML, ("models",), [{"name": "lines", "columns": [{"name": "b"}]}])
    assert [line for line in after.splitlines() if line in YAML.splitlines()] == YAML.splitlines()
    assert [each["name"] for each in yaml.safe_load(after)["models"]] == ["orders", "lines"]
    assert after.index("lines") < after.index("# behind")


def test_an_item_is_added_behind_an_alias() -> None:
    text = "a: &a {b: 1}\nmodels:\n- name: orders\n  meta: *a\nother: 1\n"
    after = appended(text, ("models",), [{"name": "lines"}])
    assert after == text.replace("other", "- name: lines\nother")


@pytest.mark.parametrize(
    "text", ["models: [{name: a}]\n", "models: []\n", "other: 1\n", "a: [\n", ""]
)
def test_a_list_of_yaml_that_is_written_otherwise_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="by hand"):
        appended(text, ("models",), [{"name": "lines"}])
