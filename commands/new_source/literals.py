"""Writes values as Python, YAML and Jinja text that parses back to exactly the same values.

Every value from an API or a person passes through here before it is written to a file.
"""

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from jinja2.sandbox import SandboxedEnvironment

LINE = 100

_JINJA = re.compile(r"\{[{%#]")


@dataclass(frozen=True)
class Call:
    """A call in a module, e.g. `records_at("items")`."""

    name: str
    args: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)

    def calls(self) -> Iterator[str]:
        """The names of this call and of those in its arguments."""
        yield self.name
        for value in _leaves((*self.args, *self.named.values())):
            if isinstance(value, Call):
                yield from value.calls()


def _leaves(values: tuple[Any, ...]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, tuple):
            yield from _leaves(value)
        else:
            yield value


def python(value: Any, indent: int = 0, before: int = 0) -> str:
    """The value as Python in ruff's format; its first line already has `before` characters."""
    flat = _flat(value)
    opening, parts, closing = _parts(value)
    fits = indent + before + len(flat) < LINE and not _is_block(value)
    if not parts or fits:
        return flat
    inner = " " * (indent + 4)
    lines = [f"{inner}{label}{python(item, indent + 4, len(label))},\n" for label, item in parts]
    return f"{opening}\n{''.join(lines)}{' ' * indent}{closing}"


def _flat(value: Any) -> str:
    if isinstance(value, str):
        text = repr(value)
        return f'"{text[1:-1]}"' if "'" not in value and '"' not in value else text
    opening, parts, closing = _parts(value)
    if not opening:
        return repr(value)
    inside = ", ".join(f"{label}{_flat(item)}" for label, item in parts)
    return f"{opening}{inside}{',' if opening == '(' and len(parts) == 1 else ''}{closing}"


def _parts(value: Any) -> tuple[str, list[tuple[str, Any]], str]:
    """A value's opening text, its items with their labels, and its closing text."""
    if isinstance(value, Call):
        named = [(f"{name}=", item) for name, item in value.named.items()]
        return f"{value.name}(", [("", item) for item in value.args] + named, ")"
    if isinstance(value, dict):
        return "{", [(f"{_flat(name)}: ", item) for name, item in value.items()], "}"
    if isinstance(value, tuple):
        return "(", [("", item) for item in value], ")"
    if isinstance(value, list):
        return "[", [("", item) for item in value], "]"
    return "", [], ""


def _is_block(value: Any) -> bool:
    """True if ruff's trailing comma keeps it on several lines, however short it is."""
    if isinstance(value, tuple):
        return any(map(_is_block, value))
    return isinstance(value, Call) and value.name in {"Source", "Resource"}


def read_python(text: str) -> tuple[dict[str, set[str]], Any]:
    """A module's imports and the declaration in its last line, without executing it.

    Raises:
        ValueError: when it is not valid Python, or does more than import and declare.
    """
    about, *imports, declared = ast.parse(text).body
    if not isinstance(about, ast.Expr) or not isinstance(about.value, ast.Constant):
        raise ValueError("it does not start with a docstring")
    if not isinstance(declared, ast.Assign) or ast.unparse(declared.targets[0]) != "SOURCE":
        raise ValueError("it does not end with SOURCE = ...")
    found: dict[str, set[str]] = {}
    for node in imports:
        if not isinstance(node, ast.ImportFrom):
            raise ValueError(f"it does more than import and declare: line {node.lineno}")
        found[str(node.module)] = {alias.name for alias in node.names}
    return found, value_of(declared.value)


def value_of(node: ast.expr) -> Any:
    """What an expression declares, without executing it.

    Raises:
        ValueError: when it is more than literals and calls.
    """
    if isinstance(node, ast.Call) and _is_name(node.func):
        named = {str(word.arg): value_of(word.value) for word in node.keywords}
        return Call(ast.unparse(node.func), tuple(map(value_of, node.args)), named)
    if isinstance(node, ast.Tuple):
        return tuple(map(value_of, node.elts))
    return ast.literal_eval(node)


def _is_name(node: ast.expr) -> bool:
    """True for a name, also of an attribute such as `datetime.fromisoformat`."""
    return isinstance(node, ast.Name) or (isinstance(node, ast.Attribute) and _is_name(node.value))


def jinja(text: str) -> str:
    """Jinja that renders to the text. dbt renders names, descriptions and whole models."""
    return _JINJA.sub(lambda found: f"{{{{ '{found[0]}' }}}}", text)


def rendered(value: Any, **context: Callable[..., str]) -> Any:
    """A text rendered by Jinja, or each text in lists and dictionaries."""
    if isinstance(value, dict):
        return {name: rendered(item, **context) for name, item in value.items()}
    if isinstance(value, list):
        return [rendered(item, **context) for item in value]
    if not isinstance(value, str):
        return value
    environment = SandboxedEnvironment(keep_trailing_newline=True)
    return environment.from_string(value).render(context)


class _Dumper(yaml.SafeDumper):
    """Indents lists in mappings, as the project's own files do."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


class OnOneLine(list[str]):
    """A list that YAML shows as `[a, b]`."""


_Dumper.add_representer(
    OnOneLine,
    lambda dumper, items: dumper.represent_sequence(
        "tag:yaml.org,2002:seq", items, flow_style=True
    ),
)


def yaml_text(value: Any) -> str:
    """The value as YAML."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 30)
