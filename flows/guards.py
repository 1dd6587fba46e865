"""Where exceptions come from a source's own functions, and where they leave a load.

What an exception quotes may be an API's answer, and so a login. Prefect prints an exception with
all that it was raised from, so each of these is looked at. Knows nothing of HTTP, Postgres or
Prefect.
"""

import json
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from flows.errors import ConfigurationError, EltError
from flows.redaction import SHOWN_CHARACTERS, redact
from flows.source import Resource

P = ParamSpec("P")
Result = TypeVar("Result")

# They carry the whole text that could not be read.
_WITH_DOCUMENTS = (UnicodeError, json.JSONDecodeError)


class RedactedError(Exception):
    """Stands for an exception that quoted a secret: its type, its redacted text, its traceback."""


def with_guards(resource: Resource) -> Resource:
    """The resource, with functions whose errors name the resource and the function.

    `records` may return any collection; it is made a list. An EltError that a function raises stays
    as it is. Of any other exception the traceback is kept, but not the exception itself: its text
    may be a whole answer.
    """
    declared = {field.name: getattr(resource, field.name) for field in fields(resource)}
    functions: dict[str, Any] = {
        name: _guarded(resource.name, name, value)
        for name, value in declared.items()
        if callable(value)
    }
    return replace(resource, **functions)


def _guarded(resource: str, role: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            result = function(*arguments)
            if role != "records" or isinstance(result, list):
                return result
            _check_records(resource, result)
            return list(result)
        except EltError:
            raise
        except Exception as error:
            problem = _problem(resource, role, error)
        # Out here, the exception does not hang on to it as its context.
        raise problem

    # What `records` says of itself; `wraps` copies no attributes of a class.
    for name in ("types", "raw", "separator"):
        if hasattr(function, name):
            setattr(call, name, getattr(function, name))
    return call


def _check_records(resource: str, result: Any) -> None:
    """Refuse what is no collection of records; as a list, a dict is its names, a text its letters.

    Raises:
        ConfigurationError: correct the function in the source.
    """
    if isinstance(result, Mapping | str | bytes) or not isinstance(result, Iterable):
        kind = "None" if result is None else f"a value of type {type(result).__name__}"
        raise ConfigurationError(
            f"{resource}: its `records` function returned {kind}. Return a list of records: "
            "[record] for a single one, [] for none."
        )


def _problem(resource: str, role: str, error: Exception) -> ConfigurationError:
    # The first frame is the call above, the second one the function.
    place = traceback.extract_tb(error.__traceback__)[:2][-1]
    return ConfigurationError(
        f"{resource}: its `{role}` function failed in {place.name}, line {place.lineno} of "
        f"{place.filename}: {_described(error)}. Correct the function in the source."
    ).with_traceback(error.__traceback__)


def _described(error: BaseException) -> str:
    """The type, and the beginning of the text."""
    text = redact(str(error))
    end = "…" if len(text) > SHOWN_CHARACTERS else ""
    return f"{type(error).__name__}: {text[:SHOWN_CHARACTERS]}{end}".rstrip(": ")


def without_secrets(function: Callable[P, Result]) -> Callable[P, Result]:
    """The function, raising no exception that shows a secret, nor one that hangs on to such."""

    @wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> Result:
        try:
            return function(*arguments, **named)
        except Exception as error:
            shown = redacted(error)
            if shown is error:
                raise
        raise shown

    return call


def redacted(error: BaseException) -> BaseException:
    """The exception, or its stand-in; what it was raised from is replaced in place."""
    stand_ins: dict[int, BaseException] = {}
    first = _shown(error, stand_ins)
    left = [first]
    seen: set[int] = set()
    while left:
        raised = left.pop()
        if id(raised) in seen:
            continue
        seen.add(id(raised))
        is_suppressed = raised.__suppress_context__
        cause, context = (
            linked and _shown(linked, stand_ins)
            for linked in (raised.__cause__, raised.__context__)
        )
        raised.__cause__, raised.__context__ = cause, context
        raised.__suppress_context__ = is_suppressed
        left += filter(None, (cause, context))
    return first


def _shown(error: BaseException, stand_ins: dict[int, BaseException]) -> BaseException:
    if isinstance(error, EltError):
        # A secret may have become known after it was made.
        error.args = tuple(redact(str(argument)) for argument in error.args)
        return error
    if not isinstance(error, _WITH_DOCUMENTS) and not _shows_secret(error):
        return error
    if id(error) not in stand_ins:
        stand_ins[id(error)] = _stand_in(error)
    return stand_ins[id(error)]


def _shows_secret(error: BaseException) -> bool:
    return any(redact(text) != text for text in (str(error), repr(error), repr(vars(error))))


def _stand_in(error: BaseException) -> RedactedError:
    stand_in = RedactedError(_described(error)).with_traceback(error.__traceback__)
    stand_in.__cause__, stand_in.__context__ = error.__cause__, error.__context__
    stand_in.__suppress_context__ = error.__suppress_context__
    return stand_in
