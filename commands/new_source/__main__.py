"""`make new-source`: writes resources of a source, with their dbt source and staging models.

What they are is told by one response of the API, or by a document that describes it: OpenAPI,
Swagger, or an Airbyte manifest. A person must review the key, the casts and the descriptions.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import indent
from typing import Any

from commands.new_source import api_url, deployment, files, first_load, inference, login_option
from commands.new_source.api_document import drafts_of, listing
from commands.new_source.api_url import ApiUrl
from commands.new_source.column_lists import column_lists
from commands.new_source.draft import Draft
from commands.new_source.draft_files import present_source, with_free_models, write
from commands.new_source.literals import Call, python
from commands.new_source.login_option import login_call, parsed_login
from commands.new_source.nested import lists_in
from commands.new_source.parent import with_parent
from commands.new_source.templates import next_steps
from commands.preview import refresh_tokens
from commands.waits import shortened
from deployments.env_file import env_file, read_environment
from flows import sources
from flows.errors import BadPayloadError, ConfigurationError, EltError
from flows.extract.auth import variable
from flows.extract.charsets import to_utf8
from flows.extract.client import Client
from flows.extract.csv_records import DELIMITERS, Csv
from flows.extract.first_request import first_request
from flows.extract.selectors import columns_at, csv_rows, ndjson, record_at, records_at
from flows.load.column_names import column_name
from flows.page import Page
from flows.redaction import shows_secret
from flows.source import Login, Partition, Record, Resource, Source, Window

ROOT = Path(__file__).resolve().parents[2]
TAB = r"\t"


def main(words: Sequence[str] | None = None) -> int:
    """Write all files, or print the reason and write none."""
    parser = argparse.ArgumentParser(prog="make new-source", description=__doc__)
    parser.add_argument("--name", default="", help="of the source, e.g. github")
    parser.add_argument("--url", default="", help="of one resource, or the API's base URL")
    parser.add_argument("--records", default="", help="their path, e.g. data.items; . for one")
    parser.add_argument("--key", default="", help="the fields that identify a record: id,line")
    parser.add_argument("--login", default="", help=login_option.FORMS)
    parser.add_argument("--body", default="", help="what to POST to the URL, as JSON")
    parser.add_argument("--from", default="", dest="document", help="an API's description")
    parser.add_argument("--resources", default="", help="of the description: orders,customers")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository to write to")
    parser.add_argument("--load", action="store_true", help="load a page and build the models")
    arguments = parser.parse_args(words)
    read_environment(env_file(arguments.root))
    try:
        if arguments.document and not arguments.resources:
            _say(listing(arguments.document, arguments.name))
            return 0
        return _written_and_loaded(arguments)
    except EltError as error:
        _say(f"FAILED: {error}")
        return 1


def _written_and_loaded(arguments: argparse.Namespace) -> int:
    """Write the files, load a page if the arguments say so, and print what happened."""
    root, is_new = arguments.root, not (arguments.root / files.module_path(arguments.name)).exists()
    drafts = _drafts(arguments)
    written = write(drafts, root)
    paths = "\n".join(f"  {path.relative_to(root)}" for path in written)
    _say(f"Written:\n{paths}")
    code = first_load.load(root, drafts, _secrets(arguments), _say) if arguments.load else 0
    deploy = _deployment_step(root, arguments.name, is_new)
    _say(next_steps(drafts, deploy))
    return code


def _secrets(arguments: argparse.Namespace) -> dict[str, str]:
    """The secret in the URL by its variable, for the first load; it is written nowhere."""
    if arguments.document:
        return {}
    given = api_url.parsed(arguments.url, arguments.name)
    login, read_secret = login_option.chosen(parsed_login(arguments.login), given.login)
    return {variable(login.secret): read_secret(login.secret)} if login and given.login else {}


def _drafts(arguments: argparse.Namespace) -> list[Draft]:
    """What the arguments ask for."""
    document, resources = arguments.document, arguments.resources
    sources.check_name(arguments.name)
    present = present_source(arguments.root, arguments.name)
    if document:
        drafts = drafts_of(
            document, arguments.name, resources, arguments.url, arguments.login, present
        )
    else:
        drafts = [
            make_draft(
                arguments.name,
                arguments.url,
                arguments.records,
                arguments.key,
                arguments.login,
                arguments.body,
                present,
            )
        ]
    return with_free_models(arguments.root, drafts)


def _deployment_step(root: Path, name: str, is_new: bool = True) -> str:
    """What is left to do for the deployment of a source; one written by hand may have none."""
    text = (files.content(root / deployment.PATH) or b"").decode(errors="replace")
    try:
        if deployment.is_deployed(text, name):
            if not is_new:
                return "make format"
            return f"describe and schedule the source in {deployment.PATH}, then make deploy"
        deployment.with_deployment(text, name)
        reason = ""
    except ConfigurationError as error:
        reason = f" ({error})"
    shown = indent(deployment.stanza(name).rstrip(), "  ")
    return f"add to {deployment.PATH}, under deployments{reason}:\n\n{shown}"


def _say(text: str) -> None:
    """Print the text with its control characters escaped, which would affect the terminal."""
    shown = (
        character if character.isprintable() or character == "\n" else repr(character)[1:-1]
        for character in text
    )
    print("".join(shown), flush=True)


def make_draft(
    name: str,
    url: str,
    records: str,
    key: str,
    login: str,
    body: str = "",
    present: Source | None = None,
) -> Draft:
    """Request one page of the API and infer the declaration from it.

    Raises:
        ConfigurationError: when the name or URL is invalid, or the response has no records.
        EltError: as `Client.get` does.
    """
    sources.check_name(name)
    given = api_url.parsed(url, name)
    credentials, read_secret = login_option.chosen(parsed_login(login), given.login)
    resource = Resource(
        # Twice: İ in lower case is two characters, and the second one is not a letter.
        name=column_name(column_name(given.name)),
        path=given.path,
        records=records_at(),
        params=given.params,
        method="POST" if body else "GET",
        body=_body(body),
    )
    source = Source(name, given.base_url, (resource,), login=credentials)
    if present is not None:
        source = _below(present, given, resource, credentials)
        [resource] = source.resources
    source = shortened(source)
    with Client(source, read_secret, share_token=refresh_tokens(source)) as client:
        page = client.get(first_request(source, resource, Partition(), Window()))
    page.rewrite(to_utf8(page, resource))
    found, rows = _records(page, records)
    _check_records(given.url, rows)
    _check_fields(rows)
    keys = _key(key, rows, resource.name)
    columns = inference.columns(rows, keys)
    paging = None if body else inference.paging(page)
    draft = Draft(
        name,
        source.base_url,
        resource.name,
        resource.path,
        given.params,
        found,
        paging,
        keys,
        login_call(credentials),
        columns,
        tuple(login_option.notes(given.login, credentials)),
        tuple(lists_in(rows, columns)) if keys else (),
        method=resource.method,
        body=resource.body,
        to_check=() if paging else _paging_to_check(page),
        inner_fields=tuple(dict.fromkeys(inference.inner_fields(rows))),
    )
    return with_parent(draft, present)


def _paging_to_check(page: Page) -> tuple[str, ...]:
    """What is known of the paging: no response tells the parameter that names the next page."""
    if token := inference.next_token(page):
        call, what = Call("next_token", (token,), {"param": "…"}), "a token"
    elif total := inference.total_pages(page):
        call, what = Call("page_number", ("…",), {"total_pages": total}), "a number of pages"
    else:
        return ()
    said = f"declare paging={python(call)} with its parameter"
    return (f"the paging: the response has {what}, so {said}",)


def _body(text: str) -> Any:
    """The body that BODY says."""
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f'BODY must be JSON, e.g. {{"a": 1}}: {error}.') from error


def _below(present: Source, given: ApiUrl, resource: Resource, login: Login | None) -> Source:
    """The source that exists, with this resource only.

    Raises:
        ConfigurationError: when the address is elsewhere, or has another login.
    """
    base_url = f"{present.base_url.rstrip('/')}/"
    if not f"{given.base_url}".startswith(base_url):
        raise ConfigurationError(
            f"The source {present.name!r} exists already, and its base_url {present.base_url} is "
            f"not where URL={given.url} is. Choose another NAME, or a URL below it."
        )
    if login is not None and login not in present.logins:
        raise ConfigurationError(
            f"The source {present.name!r} exists already, and has another login. Remove it from "
            "URL and LOGIN: the source's own is used."
        )
    folder = given.base_url[len(base_url) :].replace("{", "{{").replace("}", "}}")
    return replace(present, resources=(replace(resource, path=f"{folder}{resource.path}"),))


def _check_records(url: str, rows: list[Any]) -> None:
    if not rows:
        raise ConfigurationError(f"{url} returned no records: use parameters that return some.")
    other = [row for row in rows if not isinstance(row, dict) or not row]
    if other:
        raise ConfigurationError(
            f"{url} returned {other[0]!r:.100} as a record, which has no fields. Name the path "
            "of the records: RECORDS=data.items"
        )


def _check_fields(rows: list[Record]) -> None:
    """Refuse a secret as a field name: some APIs echo it, and the files would contain it."""
    if any(shows_secret(field) for row in rows for field in row):
        raise ConfigurationError(
            "The API returns the login as the name of a field. Write the source by hand, with a "
            "`records` function that omits the field."
        )


def _key(requested: str, rows: list[Record], resource: str) -> tuple[str, ...]:
    """The fields of the key; a single field name may contain a comma."""
    known = dict.fromkeys(field for row in rows for field in row)
    guessed = inference.key(rows, resource)
    if not requested:
        return () if guessed is None else (guessed,)
    keys = (requested,) if requested in known else tuple(filter(None, requested.split(",")))
    unknown = [field for field in keys if field not in known]
    if unknown:
        raise ConfigurationError(
            f"KEY={requested}: there is no {unknown[0]!r}. There are: {', '.join(known)}."
        )
    return keys


def _records(page: Page, wanted: str) -> tuple[Call, list[Record]]:
    """The selector call, and the records that it finds."""
    kind = page.content_type.lower()
    delimiter = wanted.replace(TAB, "\t")
    if delimiter in DELIMITERS or any(word in kind for word in Csv.types):
        return _csv(page, delimiter)
    if "ndjson" in kind or "jsonl" in kind:
        return Call("ndjson"), ndjson()(page)
    if not wanted and (path := column_lists(_document(page))) is not None:
        return Call("columns_at", (path,)), columns_at(path)(page)
    path = wanted or inference.records_path(_document(page))
    if path is None or path == inference.WHOLE:
        return Call("record_at"), record_at()(page)
    return Call("records_at", (path,) if path else ()), records_at(path)(page)


def _document(page: Page) -> Any:
    try:
        return page.document
    except BadPayloadError as error:
        if delimiters := _delimiters(page):
            raise ConfigurationError(
                f"{error} If it is CSV, {_delimiter_is(delimiters)}"
            ) from error
        raise


def _csv(page: Page, delimiter: str) -> tuple[Call, list[Record]]:
    delimiters = [] if delimiter else _delimiters(page)
    if delimiters not in ([], [","]):
        raise ConfigurationError(f"{page.url} returned CSV: {_delimiter_is(delimiters)}")
    if len(delimiter) > 1 or delimiter in {"\r", "\n", '"'}:
        raise ConfigurationError(
            f"RECORDS={delimiter} must be the delimiter of the CSV: one character, e.g. RECORDS=;"
        )
    return Call("csv_rows", (delimiter,) if delimiter else ()), csv_rows(delimiter or ",")(page)


def _delimiters(page: Page) -> list[str]:
    """The delimiters with which the page is a table of several columns."""
    return [delimiter for delimiter in DELIMITERS if _is_table(page, delimiter)]


def _is_table(page: Page, delimiter: str) -> bool:
    try:
        rows = csv_rows(delimiter)(page)
    except BadPayloadError:
        return False
    return bool(rows) and len(rows[0]) > 1


def _delimiter_is(likely: list[str]) -> str:
    named = " or ".join(map(repr, likely))
    words = " or ".join(f'RECORDS="{each}"'.replace("\t", TAB) for each in likely)
    return f"its delimiter may be {named}. Name it: {words}"


if __name__ == "__main__":
    sys.exit(main())
