"""An API's description as drafts: which kind of document it is, and the list of what it offers."""

from collections.abc import Sequence
from dataclasses import replace

from commands.new_source import airbyte_manifest, documents, openapi, openapi_drafts
from commands.new_source.documents import Document
from commands.new_source.draft import Draft
from commands.new_source.login_option import login_call, parsed_login
from flows.errors import ConfigurationError
from flows.source import Source

MOST_LISTED = 500
NO_LOGIN = "none"


def listing(place: str, name: str) -> str:
    """What a document offers, and the command that writes some of it.

    Raises:
        ConfigurationError: when it is no known kind of document.
    """
    document = documents.read(place)
    is_manifest = airbyte_manifest.is_manifest(document)
    lines = airbyte_manifest.listed(document) if is_manifest else _openapi_lines(document)
    command = f"make new-source NAME={name or 'shop'} FROM={document.place} RESOURCES="
    more = "" if len(lines) <= MOST_LISTED else f"\n  … and {len(lines) - MOST_LISTED} more"
    shown = "\n".join(f"  {line}" for line in lines[:MOST_LISTED])
    return f"{document.place} offers:\n{shown}{more}\nNext:\n  {command}{_first_name(lines)}"


def _first_name(lines: Sequence[str]) -> str:
    return lines[0].split()[0] if lines else "…"


def _openapi_lines(document: Document) -> list[str]:
    _check_kind(document)
    found = sorted(openapi.endpoints(document).values(), key=lambda each: not each.is_list)
    return [
        f"{each.name:<30} GET {' '.join(each.path.split())}{'' if each.is_list else ' (no list)'}"
        for each in found
    ]


def _check_kind(document: Document) -> None:
    version = str(document.root.get("openapi") or document.root.get("swagger") or "")
    if not version.startswith(("3.0", "3.1", "2.0")):
        raise ConfigurationError(
            f"{document.place} is not OpenAPI 3.0 or 3.1, Swagger 2.0 or an Airbyte manifest"
            f"{f', but version {version:.20}' if version else ''}."
        )


def drafts_of(
    place: str, name: str, resources: str, url: str, login: str, present: Source | None
) -> list[Draft]:
    """The drafts of the resources that a person chooses from a document.

    Raises:
        ConfigurationError: when the document does not say what they need.
        EltError: as `Client.get` does.
    """
    document = documents.read(place)
    chosen = list(dict.fromkeys(filter(None, (each.strip() for each in resources.split(",")))))
    if not chosen:
        raise ConfigurationError("RESOURCES names none. Name some: RESOURCES=orders,customers.")
    if present is not None and login:
        raise ConfigurationError(
            f"The source {name!r} exists already, and its own login is used. Remove LOGIN."
        )
    given = None if login == NO_LOGIN else login_call(parsed_login(login))
    asks = login != NO_LOGIN and present is None
    if airbyte_manifest.is_manifest(document):
        read = airbyte_manifest.drafts
    else:
        _check_kind(document)
        read = openapi_drafts.drafts
    drafts = read(document, name, chosen, url, given, asks_for_login=asks)
    found = list(map(_with_doubt, drafts))
    return found if present is None else [_below(present, draft) for draft in found]


def _with_doubt(draft: Draft) -> Draft:
    """The draft with its tombstone among what is to check: only a name tells of it."""
    if draft.tombstone is None:
        return draft
    said = f"the deletions: {draft.tombstone.args[0]!r} says by its name that a record is deleted"
    return replace(draft, to_check=(*draft.to_check, said))


def _below(present: Source, draft: Draft) -> Draft:
    """The draft with a path below the base URL of the source that exists.

    Raises:
        ConfigurationError: when it is elsewhere.
    """
    base_url = f"{present.base_url.rstrip('/')}/"
    if not draft.base_url.startswith(base_url):
        raise ConfigurationError(
            f"The source {present.name!r} exists already, and its base_url {present.base_url} is "
            f"not that of the document, {draft.base_url}. Choose another NAME, or name the URL."
        )
    folder = draft.base_url[len(base_url) :].replace("{", "{{").replace("}", "}}")
    return replace(draft, base_url=present.base_url, path=f"{folder}{draft.path}")
