"""Guards for exceptions: those of a source's own functions, and those that leave a load.

An exception may quote an API's response, and so a login. Prefect prints an exception with its whole
chain of causes, so each of them is redacted. Knows nothing of HTTP, Postgres or Prefect.
"""

import copy
import json
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from functools import lru_cache, wraps
from inspect import unwrap
from typing import Any, ParamSpec, TypeVar

from flows.errors import ConfigurationError, EltError
from flows.redaction import SHOWN_CHARACTERS, redact
from flows.source import Resource

P = ParamSpec("P")
Result = TypeVar("Result")

# They hold the whole text that could not be parsed.
_WITH_DOCUMENTS = (UnicodeError, json.JSONDecodeError)


class RedactedError(Exception):
    """Replaces an exception that quoted a secret; has its type, redacted text and traceback."""


def with_guards(resource: Resource) -> Resource:
    """The resource, with functions whose errors name the resource and the function.

    `records` may return any collection; it is converted to a list. An EltError stays as it is. Any
    other exception is replaced and only its traceback is kept: its text may be a whole response. It
    is not quoted at all if the resource has personal fields.
    """
    return _with_guards(_Same(resource))


class _Same:
    """A resource as a key: equal to itself alone, since it can't be hashed."""

    def __init__(self, resource: Resource) -> None:
        self.resource = resource

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.resource is self.resource

    def __hash__(self) -> int:
        return id(self.resource)


# Each partition of a resource asks for it.
@lru_cache(maxsize=64)
def _with_guards(key: _Same) -> Resource:
    resource = key.resource
    declared = {field.name: getattr(resource, field.name) for field in fields(resource)}
    functions: dict[str, Any] = {
        name: _guarded(resource.name, name, value, bool(resource.personal))
        for name, value in declared.items()
        if callable(value)
    }
    if resource.job is not None:
        functions["job"] = copy.copy(resource.job)
        vars(functions["job"]).update(
            (name, _guarded(resource.name, f"job.{name}", value, bool(resource.personal)))
            for name, value in vars(resource.job).items()
            if callable(value)
        )
    # `replace` would check all partitions of the declaration again, for each page that is read.
    guarded = copy.copy(resource)
    vars(guarded).update(functions)
    return guarded


def unguarded(function: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """The function as it was declared: its type may tell what it does."""
    return unwrap(function) if function else None


def _guarded(
    resource: str, role: str, function: Callable[..., Any], hides_text: bool
) -> Callable[..., Any]:
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
            problem = _problem(resource, role, error, hides_text)
        # Raised out here, the exception does not get the original as its context.
        raise problem

    # Attributes of `records` that `wraps` does not copy, since they belong to its class.
    for name in ("types", "raw", "separator", "to_json"):
        if hasattr(function, name):
            setattr(call, name, getattr(function, name))
    if hasattr(function, "forecast"):
        vars(call)["forecast"] = _guarded_forecast(resource, role, function.forecast, hides_text)
    return call


def _guarded_forecast(
    resource: str, role: str, function: Callable[..., Iterable[Any]], hides_text: bool
) -> Callable[..., Iterator[Any]]:
    """The same for a function whose results are made one by one."""

    @wraps(function)
    def call(*arguments: Any) -> Iterator[Any]:
        try:
            found = function(*arguments)
            # Not kept: the page may be large.
            del arguments
            yield from found
            return
        except EltError:
            raise
        except Exception as error:
            problem = _problem(resource, f"{role}.forecast", error, hides_text)
        raise problem

    return call


def _check_records(resource: str, result: Any) -> None:
    """Refuse what is not a collection of records; list() of a dict or a text gives keys or letters.

    Raises:
        ConfigurationError: correct the function in the source.
    """
    if isinstance(result, Mapping | str | bytes) or not isinstance(result, Iterable):
        kind = "None" if result is None else f"a value of type {type(result).__name__}"
        raise ConfigurationError(
            f"{resource}: its `records` function returned {kind}. Return a list of records: "
            "[record] for a single one, [] for none."
        )


def call_own(
    owner: str, role: str, function: Callable[P, Result], *given: P.args, **named: P.kwargs
) -> Result:
    """Call a function of a source; an exception becomes an error that names owner and role.

    Raises:
        ConfigurationError: correct the function in the source.
    """
    try:
        return function(*given, **named)
    except EltError:
        raise
    except Exception as error:
        problem = _problem(owner, role, error)
    # Raised out here, the exception does not get the original as its context.
    raise problem


def _problem(
    owner: str, role: str, error: Exception, hides_text: bool = False
) -> ConfigurationError:
    # The first frame is the call above, the second one the function.
    place = traceback.extract_tb(error.__traceback__)[:2][-1]
    said = type(error).__name__ if hides_text else _describe(error)
    return ConfigurationError(
        f"{owner}: its `{role}` function failed in {place.name}, line {place.lineno} of "
        f"{place.filename}: {said}. Correct the function in the source."
    ).with_traceback(error.__traceback__)


def _describe(error: BaseException) -> str:
    """The type and the start of the text."""
    text = redact(str(error))
    end = "…" if len(text) > SHOWN_CHARACTERS else ""
    return f"{type(error).__name__}: {text[:SHOWN_CHARACTERS]}{end}".rstrip(": ")


def without_secrets(function: Callable[P, Result]) -> Callable[P, Result]:
    """The function, with secrets redacted in the exceptions it raises and in their causes."""

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
    """The exception, or its stand-in; its causes and contexts are replaced in place."""
    stand_ins: dict[int, BaseException] = {}
    first = _redact_one(error, stand_ins)
    pending = [first]
    seen: set[int] = set()
    while pending:
        raised = pending.pop()
        if id(raised) in seen:
            continue
        seen.add(id(raised))
        is_suppressed = raised.__suppress_context__
        cause, context = (
            linked and _redact_one(linked, stand_ins)
            for linked in (raised.__cause__, raised.__context__)
        )
        raised.__cause__, raised.__context__ = cause, context
        raised.__suppress_context__ = is_suppressed
        pending += filter(None, (cause, context))
    return first


def _redact_one(error: BaseException, stand_ins: dict[int, BaseException]) -> BaseException:
    if isinstance(error, EltError):
        # A secret may have been registered after the error was created.
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
    stand_in = RedactedError(_describe(error)).with_traceback(error.__traceback__)
    stand_in.__cause__, stand_in.__context__ = error.__cause__, error.__context__
    stand_in.__suppress_context__ = error.__suppress_context__
    return stand_in
