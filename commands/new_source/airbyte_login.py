"""The authenticators of Airbyte's manifests that have a counterpart here."""

import re

from commands.new_source.airbyte_component import Component
from commands.new_source.literals import Call
from flows.errors import ConfigurationError

_CONFIG = re.compile(r"\{\{\s*config(?:\.(\w+)|\[\s*['\"](\w+)['\"]\s*\])\s*\}\}")


def login(source: str, authenticator: Component) -> Call | None:
    """The login; None for none.

    Raises:
        ConfigurationError: when it has no counterpart, or the manifest can't know a part of it.
    """
    kind = authenticator.type
    if not authenticator.node or kind == "NoAuth":
        return None
    if kind == "BearerAuthenticator":
        return Call("Bearer", (_secret(source, authenticator, "api_token"),))
    if kind == "ApiKeyAuthenticator" and (call := _api_key(source, authenticator)):
        return call
    if kind == "BasicHttpAuthenticator":
        secret = _secret(source, authenticator, "password")
        raise ConfigurationError(
            "The manifest's login is HTTP Basic, and the manifest can't know its user. Name it: "
            f"LOGIN=basic:USER:{secret}."
        )
    endpoint = authenticator.value("token_refresh_endpoint")
    if kind == "OAuthAuthenticator" and authenticator.value("grant_type") == "client_credentials":
        secret = _secret(source, authenticator, "client_secret")
        raise ConfigurationError(
            "The manifest's login is OAuth2, and the manifest can't know the client. Name it: "
            f"LOGIN=oauth2:CLIENT:{secret}:{endpoint}."
        )
    raise ConfigurationError(
        f"The manifest's login ({kind or 'without a type'}) has no counterpart that can be "
        "written. Name another one, e.g. LOGIN=bearer:SECRET, or LOGIN=none to declare it by hand."
    )


def _api_key(source: str, authenticator: Component) -> Call | None:
    secret = _secret(source, authenticator, "api_token")
    option = authenticator.child("inject_into")
    if header := authenticator.text("header"):
        return Call("ApiKey", (secret,), {"header": header})
    where = {"header": "header", "request_parameter": "param"}.get(option.text("inject_into"))
    name = option.text("field_name")
    return Call("ApiKey", (secret,), {where: name}) if where and name else None


def _secret(source: str, authenticator: Component, field: str) -> str:
    """The name of the secret, after the option of Airbyte's that holds it."""
    value = authenticator.value(field)
    found = _CONFIG.fullmatch(value.strip()) if isinstance(value, str) else None
    name = (found[1] or found[2]) if found else field
    return re.sub("[^a-z0-9]+", "-", f"{source}-{name}".lower()).strip("-")
