"""Promises of docs/examples: each is short, tested, linked to, and no part of the product."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
PRODUCT = ("flows", "blocks", "deployments", "commands")
LINES_PER_RESOURCE = 40


def test_each_example_is_tested_and_linked_to() -> None:
    page = (ROOT / "docs" / "sources.md").read_text()
    assert len(EXAMPLES) >= 3
    for example in EXAMPLES:
        assert Path(__file__).with_name(f"test_{example.stem}_example.py").exists()
        assert f"(examples/{example.name})" in page


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_a_resource_takes_few_lines(example: Path) -> None:
    """Of the whole file; those of a function count for each call of it."""
    text = example.read_text()
    resources = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Resource"
    ]
    assert resources
    for resource in resources:
        assert (resource.end_lineno or 0) - resource.lineno < LINES_PER_RESOURCE
    assert len(text.splitlines()) <= LINES_PER_RESOURCE * (len(resources) + 1)


def test_the_product_imports_no_example() -> None:
    modules = [path for folder in PRODUCT for path in (ROOT / folder).rglob("*.py")]
    assert len(modules) > 100
    assert [path for path in modules if "docs.examples" in path.read_text()] == []
