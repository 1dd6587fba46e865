"""Adds resources to a source's module that exists, and leaves all other text of it as it is.

The result is parsed and compared with the module before: only the imports that the new resources
need and the resources themselves may differ.
"""

import ast
import io
import tokenize
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from commands.new_source.literals import Call, python, value_of
from commands.new_source.source_module import HOMES, import_line, imports
from flows.errors import ConfigurationError

INDENT = 4


def extended(text: str, added: Sequence[Call]) -> str:
    """A module's text with more resources in its SOURCE.

    Raises:
        ConfigurationError: when SOURCE is not a plain call of `Source`, or the resources need a
            name that means something else in the module.
    """
    try:
        result = _with_imports(_with_resources(text, added), added)
        _check(text, result, added)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"The resource can't be added to the module: {error}. Add it by hand."
        ) from error
    return result


def _with_resources(text: str, added: Sequence[Call]) -> str:
    lines = _Lines(text)
    node = _resources(ast.parse(text))
    start, end = lines.span(node)
    indent = lines.indent(node)
    inner = " " * (indent + INDENT)
    items = "".join(f"{inner}{python(call, indent + INDENT)},\n" for call in added)
    closing = f"{' ' * indent})"
    if not isinstance(node, ast.Tuple):
        whole = text[start:end]
        plain = whole if isinstance(node, ast.Name | ast.Call | ast.Attribute) else f"({whole})"
        return f"{text[:start]}(\n{inner}*{plain},\n{items}{closing}{text[end:]}"
    elements = [lines.span(element) for element in node.elts]
    if _is_block(text[start:end]):
        at = text.rindex("\n", start, end) + 1
        last = elements[-1][1] if elements else at
        comma = "" if not elements or _has_comma(text[last:end]) else ","
        return text[:last] + comma + text[last:at] + items + text[at:]
    if "#" in text[start:end]:
        raise ValueError("its resources are not one to a line; run `make format` first")
    listed = "".join(f"{inner}{text[first:last]},\n" for first, last in elements)
    return f"{text[:start]}(\n{listed}{items}{closing}{text[end:]}"


def _resources(tree: ast.Module) -> ast.expr:
    """The expression that the module's SOURCE has as its resources."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        if [ast.unparse(target) for target in targets] == ["SOURCE"]:
            value = getattr(node, "value", None)
            if isinstance(value, ast.Call) and ast.unparse(value.func) == "Source":
                return _argument(value)
    raise ValueError("it has no SOURCE = Source(...)")


def _argument(call: ast.Call) -> ast.expr:
    for word in call.keywords:
        if word.arg == "resources":
            return word.value
    if len(call.args) > 2 and not any(isinstance(each, ast.Starred) for each in call.args):
        return call.args[2]
    raise ValueError("its Source has no argument `resources`")


def _is_block(tuple_text: str) -> bool:
    """True if the closing parenthesis is the first character of its line."""
    return "\n" in tuple_text and tuple_text.rpartition("\n")[2].strip() == ")"


def _has_comma(text: str) -> bool:
    """True if there is a comma outside of comments."""
    return any("," in line.partition("#")[0] for line in text.splitlines())


class _Lines:
    """Places of a syntax tree's nodes in the text; the tree counts bytes of UTF-8."""

    def __init__(self, text: str) -> None:
        self._lines = text.encode().splitlines(keepends=True)
        self._text = text

    def _index(self, line: int, column: int) -> int:
        before = b"".join(self._lines[: line - 1]) + self._lines[line - 1][:column]
        return len(before.decode())

    def span(self, node: Any) -> tuple[int, int]:
        """Where the node begins and ends."""
        start = self._index(node.lineno, node.col_offset)
        return start, self._index(node.end_lineno, node.end_col_offset)

    def indent(self, node: ast.expr) -> int:
        """How far the node's first line is indented."""
        line = self._lines[node.lineno - 1].decode()
        return len(line) - len(line.lstrip(" "))


def _with_imports(text: str, added: Sequence[Call]) -> str:
    for home, names in imports(added).items():
        text = _with_import(text, home, names)
    return text


def _with_import(text: str, home: str, names: set[str]) -> str:
    """The text with the names imported from a module, in the statement that imports from it."""
    tree, lines = ast.parse(text), _Lines(text)
    known = [*_bound(tree)]
    if taken := sorted(bound for place, _, bound in known if bound in names and place != home):
        raise ValueError(f"{taken[0]!r} is not that of {home} in it")
    missing = names - {bound for _, _, bound in known}
    if not missing:
        return text
    statements = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    for node in statements:
        start, end = lines.span(node)
        if node.module == home and not node.level and "#" not in text[start:end]:
            present = {ast.unparse(alias) for alias in node.names}
            return text[:start] + import_line(home, present | missing) + text[end:]
    following = [node for node in statements if str(node.module) > home or node.level]
    line = import_line(home, missing)
    if home.startswith("flows.") or not following:
        following = [node for node in following if str(node.module).startswith("flows.")]
    if following:
        at, _ = lines.span(following[0])
        gap = "\n" if home.startswith("flows.") else "\n\n"
        return f"{text[:at]}{line}{gap}{text[at:]}"
    imported = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    _, end = lines.span(imported[-1])
    return f"{text[:end]}\n{line}{text[end:]}"


def _bound(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """The module's own names: where each is from, its name there, and its name here."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom | ast.Import):
            yield from map(partial(_imported, node), node.names)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            yield "", node.name, node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            names = (each for each in ast.walk(node) if isinstance(each, ast.Name))
            yield from (("", each.id, each.id) for each in names if isinstance(each.ctx, ast.Store))


def _imported(node: ast.ImportFrom | ast.Import, alias: ast.alias) -> tuple[str, str, str]:
    bound = alias.asname or alias.name
    if isinstance(node, ast.Import):
        return "", alias.name, bound.partition(".")[0]
    is_plain = bound == alias.name and not node.level
    return str(node.module) if is_plain else "", alias.name, bound


def _check(before: str, after: str, added: Sequence[Call]) -> None:
    """Compare the two modules.

    Raises:
        ValueError: when they differ in more than the added resources and their imports.
    """
    old, new = ast.parse(before), ast.parse(after)
    node = _resources(new)
    elements = node.elts if isinstance(node, ast.Tuple) else []
    if [value_of(each) for each in elements[-len(added) :]] != list(added):
        raise ValueError("the resource reads back differently")
    kept = elements[: -len(added)]
    if not isinstance(_resources(old), ast.Tuple):
        [starred] = kept
        kept_text = ast.dump(starred.value) if isinstance(starred, ast.Starred) else ""
        is_same = kept_text == ast.dump(_resources(old))
    else:
        is_same = list(map(ast.dump, kept)) == list(map(ast.dump, _elements(_resources(old))))
    _blank(old)
    _blank(new)
    imported = {(home, name, name) for home, names in imports(added).items() for name in names}
    names_differ = {*_bound(new)} != {*_bound(old)} | imported
    if not is_same or names_differ or ast.dump(_rest(old)) != ast.dump(_rest(new)):
        raise ValueError("the module would read differently in other places")
    if _comments(before) != _comments(after):
        raise ValueError("a comment of the module would be lost")


def _elements(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple) else []


def _blank(tree: ast.Module) -> None:
    """Empty the resources, which are compared on their own."""
    place = _resources(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.value is place:
            node.value = ast.Constant(None)
        elif isinstance(node, ast.Call) and place in node.args:
            node.args = [ast.Constant(None) if each is place else each for each in node.args]


def _rest(tree: ast.Module) -> ast.Module:
    """The module without the imports of this project's names."""
    kept = [
        node
        for node in tree.body
        if not (isinstance(node, ast.ImportFrom) and node.module in HOMES)
    ]
    return ast.Module(kept, [])


def _comments(text: str) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [token.string for token in tokens if token.type == tokenize.COMMENT]
