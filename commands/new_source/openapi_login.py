"""The login that an OpenAPI or Swagger document says."""

import re
from collections.abc import Sequence

from commands.new_source.documents import Document, Node, items, mappings, text_of
from commands.new_source.literals import Call
from flows.errors import ConfigurationError

Login = Call | tuple[Call, ...] | None


def login(document: Document, source: str, operations: Sequence[Node]) -> Login:
    """The login of some operations; None if one of their alternatives is to have none.

    Raises:
        ConfigurationError: when the operations differ, or there is no counterpart here; the
            message says what to pass instead.
    """
    each_one = [_alternatives(document, operation) for operation in operations]
    if any(alternatives != each_one[0] for alternatives in each_one):
        raise ConfigurationError(
            "The resources have different logins, and a source has one. Choose RESOURCES of one "
            "login, or name it: LOGIN=bearer:SECRET."
        )
    alternatives = each_one[0]
    if not alternatives or {} in alternatives:
        return None
    reasons = []
    for alternative in alternatives:
        try:
            calls = [
                _call(document, source, name, items(scopes)) for name, scopes in alternative.items()
            ]
        except ConfigurationError as error:
            reasons.append(str(error))
            continue
        return calls[0] if len(calls) == 1 else tuple(calls)
    raise ConfigurationError(" ".join(reasons))


def _alternatives(document: Document, operation: Node) -> list[Node]:
    security = operation.get("security", document.root.get("security"))
    return [each for each in items(security) if isinstance(each, dict)]


def _schemes(document: Document) -> dict[str, Node]:
    parts = document.resolved(document.root.get("components"))
    found = parts.get("securitySchemes", document.root.get("securityDefinitions"))
    return {name: document.resolved(each) for name, each in mappings(found)}


def _call(document: Document, source: str, name: str, scopes: list[str]) -> Call:
    scheme = _schemes(document).get(name, {})
    kind, place = text_of(scheme.get("type")), text_of(scheme.get("in"))
    secret = re.sub("[^a-z0-9]+", "-", f"{source}-{name}".lower()).strip("-")
    if kind == "apiKey" and place in ("header", "query"):
        where = "header" if place == "header" else "param"
        return Call("ApiKey", (secret,), {where: text_of(scheme.get("name"))})
    style = text_of(scheme.get("scheme")).lower()
    if kind == "http" and style == "bearer":
        return Call("Bearer", (secret,))
    if kind == "basic" or (kind == "http" and style == "basic"):
        raise ConfigurationError(
            f"The login {name!r} is HTTP Basic, and the document can't know its user. "
            f"Name it: LOGIN=basic:USER:{secret}."
        )
    if kind == "oauth2" and (url := _token_url(document, scheme)):
        raise ConfigurationError(
            f"The login {name!r} is OAuth2, and the document can't know the client. Name it: "
            f"LOGIN=oauth2:CLIENT:{secret}:{url}."
        )
    shown = " ".join(filter(None, (kind, style or place))) or "unknown"
    raise ConfigurationError(
        f"The login {name!r} ({shown}) has no counterpart that can be written. Name another one, "
        "e.g. LOGIN=bearer:SECRET, or LOGIN=none to declare it by hand."
    )


def _token_url(document: Document, scheme: Node) -> str:
    flows = document.resolved(scheme.get("flows"))
    flow = document.resolved(flows.get("clientCredentials"))
    if scheme.get("flow") == "application":
        return text_of(scheme.get("tokenUrl"))
    return text_of(flow.get("tokenUrl"))


def with_scopes(document: Document, call: Call | None, operations: Sequence[Node]) -> Call | None:
    """The login of OAuth2 with the scopes that the operations require."""
    if call is None or call.name != "OAuth2":
        return call
    schemes = _schemes(document)
    scopes = {
        text_of(scope): None
        for operation in operations
        for alternative in _alternatives(document, operation)
        for name, needed in alternative.items()
        if schemes.get(name, {}).get("type") == "oauth2"
        for scope in items(needed)
    }
    joined = " ".join(filter(None, scopes))
    return Call(call.name, call.args, {**call.named, "scope": joined}) if joined else call
