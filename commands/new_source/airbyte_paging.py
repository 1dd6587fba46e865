"""The paginators of Airbyte's manifests that have a counterpart here."""

import re
from typing import Any

from commands.new_source.airbyte_component import Component
from commands.new_source.literals import Call
from commands.new_source.openapi_paging import Paging

_STEP = r"(?:\.(\w+)|\[\s*['\"]([\w@.-]+)['\"]\s*\])"
_FIELD = re.compile(rf"\{{\{{\s*response((?:{_STEP})+)\s*\}}\}}")
_LINK = re.compile(r"\{\{\s*headers\[\s*['\"]link['\"]\s*\]\[\s*['\"]next['\"]\s*\].*\}\}", re.I)
_NOT_MORE = re.compile(rf"\{{\{{\s*not\s+response((?:{_STEP})+)\s*\}}\}}")


def paging(paginator: Component) -> Paging:
    """The paging function and the first parameters; what has no counterpart is noted."""
    if not paginator.node or paginator.type == "NoPagination":
        return Paging(None)
    paginator.lose_other("pagination_strategy", "page_token_option", "page_size_option")
    strategy = paginator.child("pagination_strategy")
    params = _size(paginator, strategy)
    call = None
    if strategy.type == "OffsetIncrement":
        strategy.lose_other("page_size")
        call = _call("offset", paginator)
    elif strategy.type == "PageIncrement":
        strategy.lose_other("page_size", "start_from_page", "inject_on_first_request")
        first = strategy.node.get("start_from_page", 0)
        call = _call("page_number", paginator, first=first)
        if call is not None:
            params[call.args[0]] = first
    elif strategy.type == "CursorPagination":
        strategy.lose_other("page_size", "cursor_value", "stop_condition")
        call = _by_cursor(paginator, strategy)
    if call is None:
        strategy.lose(strategy.type)
    return Paging(call, params)


def _size(paginator: Component, strategy: Component) -> dict[str, Any]:
    """The parameter with the size of a page."""
    option, size = paginator.child("page_size_option"), strategy.node.get("page_size")
    if option.text("inject_into") == "request_parameter" and type(size) is int:
        return {option.text("field_name"): size}
    if option.node:
        option.lose("inject_into")
    return {}


def _param(paginator: Component) -> str:
    """The query parameter with the next page's position."""
    option = paginator.child("page_token_option")
    is_param = option.text("inject_into") == "request_parameter"
    return option.text("field_name") if is_param else ""


def _call(name: str, paginator: Component, first: Any = 0) -> Call | None:
    param = _param(paginator)
    if not param or type(first) is not int:
        return None
    return Call(name, (param,), {"first": first} if name == "page_number" and first != 1 else {})


def _by_cursor(paginator: Component, strategy: Component) -> Call | None:
    value = strategy.value("cursor_value")
    if isinstance(value, str) and _LINK.fullmatch(value.strip()):
        return Call("next_link")
    found = _FIELD.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return None
    # That there is no token ends the reading anyway.
    more = {name: path for name, path in _more(strategy).items() if path != _path(found[1])}
    if paginator.child("page_token_option").type == "RequestPath":
        return Call("next_url", (_path(found[1]),), more)
    param = _param(paginator)
    return Call("next_token", (_path(found[1]),), {"param": param, **more}) if param else None


def _more(strategy: Component) -> dict[str, Any]:
    """The field that a condition of the end tests."""
    condition = strategy.value("stop_condition")
    found = _NOT_MORE.fullmatch(condition.strip()) if isinstance(condition, str) else None
    if found is not None:
        return {"more": _path(found[1])}
    if condition:
        strategy.lose("stop_condition")
    return {}


def _path(steps: str) -> str:
    """`.meta['next']` as a path with dots."""
    return ".".join(dotted or quoted for dotted, quoted in re.findall(_STEP, steps))
