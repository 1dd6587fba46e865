"""`make new-source`: from one response, writes a source module, its dbt source and staging model.

The files work as they are, but a person must review the key, the casts and the descriptions.
"""

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from commands.new_source import api_url, inference
from commands.new_source.api_url import UrlLogin
from commands.new_source.literals import Call
from commands.new_source.nested import lists_in
from commands.new_source.templates import Draft, next_steps, write
from flows import sources
from flows.errors import BadPayloadError, ConfigurationError, EltError
from flows.extract.auth import ApiKey, Bearer, ReadSecret, secret_from_environment, variable
from flows.extract.charsets import to_utf8
from flows.extract.client import Client
from flows.extract.csv_records import DELIMITERS, Csv
from flows.extract.first_request import first_request
from flows.extract.selectors import csv_rows, ndjson, record_at, records_at
from flows.load.column_names import column_name
from flows.page import Page
from flows.redaction import shows_secret
from flows.source import Login, Partition, Record, Resource, Source, Window

ROOT = Path(__file__).resolve().parents[2]
TAB = r"\t"


def main() -> int:
    """Write all files, or print the reason and write none."""
    parser = argparse.ArgumentParser(prog="make new-source", description=__doc__)
    parser.add_argument("--name", required=True, help="of the source, e.g. github")
    parser.add_argument("--url", required=True, help="of one resource, with its parameters")
    parser.add_argument("--records", default="", help="their path, e.g. data.items; . for one")
    parser.add_argument("--key", default="", help="the fields that identify a record: id,line")
    parser.add_argument("--login", default="", help="bearer:NAME, header:H:NAME or param:P:NAME")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository to write to")
    arguments = parser.parse_args()
    try:
        draft = make_draft(
            arguments.name, arguments.url, arguments.records, arguments.key, arguments.login
        )
        written = write(draft, arguments.root)
    except EltError as error:
        print(_printable(f"FAILED: {error}"))
        return 1
    print("Written:\n" + "\n".join(f"  {path.relative_to(arguments.root)}" for path in written))
    print(_printable(next_steps(draft)))
    return 0


def _printable(text: str) -> str:
    """The text with its control characters escaped, which would affect the terminal."""
    return "".join(
        character if character.isprintable() or character == "\n" else repr(character)[1:-1]
        for character in text
    )


def make_draft(name: str, url: str, records: str, key: str, login: str) -> Draft:
    """Request one page of the API and infer the declaration from it.

    Raises:
        ConfigurationError: when the name or URL is invalid, or the response has no records.
        EltError: as `Client.get` does.
    """
    sources.check_name(name)
    given = api_url.parsed(url, name)
    credentials, read_secret = _credentials(_login(login), given.login)
    resource = Resource(
        # Twice: İ in lower case is two characters, and the second one is not a letter.
        name=column_name(column_name(given.name)),
        path=given.path,
        records=records_at(),
        params=given.params,
    )
    source = Source(name, given.base_url, (resource,), login=credentials)
    with Client(source, read_secret) as client:
        page = client.get(first_request(source, resource, Partition(), Window()))
    page.rewrite(to_utf8(page, resource))
    found, rows = _records(page, records)
    _check_records(given.url, rows)
    _check_fields(rows)
    keys = _key(key, rows, resource.name)
    columns = inference.columns(rows, keys)
    return Draft(
        name,
        given.base_url,
        resource.name,
        given.path,
        given.params,
        found,
        inference.paging(page),
        keys,
        _call(credentials),
        columns,
        tuple(_notes(given.login, credentials)),
        tuple(lists_in(rows, columns)) if keys else (),
    )


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


def _credentials(login: Login | None, found: UrlLogin | None) -> tuple[Login | None, ReadSecret]:
    """The login to declare, and a function that returns its secret now.

    Raises:
        ConfigurationError: when the URL contains another login than LOGIN names.
    """
    if found is None:
        return login, secret_from_environment
    if login is not None and (not login.param or login.param != found.login.param):
        raise ConfigurationError(
            f"The URL contains a login ({found.place}), and LOGIN names another one. Remove one."
        )
    return login or found.login, lambda _: found.value


def _notes(found: UrlLogin | None, login: Login | None) -> list[str]:
    """The user's next step for a login that the URL contained."""
    if found is None or login is None:
        return []
    return [
        f"the URL's login ({found.place}) is not in the files: the source names the secret "
        f"{login.secret!r}. Set {variable(login.secret)} to it."
    ]


def _login(text: str) -> Login | None:
    """The login that LOGIN names; its secret is read from the environment."""
    kind, *rest = text.split(":")
    if kind == "" and not rest:
        return None
    if all(rest):
        if kind == "bearer" and len(rest) == 1:
            return Bearer(rest[0])
        if kind == "header" and len(rest) == 2:
            return ApiKey(rest[1], header=rest[0])
        if kind == "param" and len(rest) == 2:
            return ApiKey(rest[1], param=rest[0])
    raise ConfigurationError(
        f"LOGIN={text} must be bearer:SECRET, header:HEADER:SECRET or param:PARAMETER:SECRET; "
        "SECRET is the name of the stored secret, e.g. github-token."
    )


def _call(login: Any) -> Call | None:
    """The call that declares a login: the first argument by position, the rest by name."""
    if login is None:
        return None
    first, *others = fields(login)
    named = {one.name: getattr(login, one.name) for one in others}
    differing = {one.name: named[one.name] for one in others if named[one.name] != one.default}
    return Call(type(login).__name__, (getattr(login, first.name),), differing)


def _records(page: Page, wanted: str) -> tuple[Call, list[Record]]:
    """The selector call, and the records that it finds."""
    kind = page.content_type.lower()
    delimiter = wanted.replace(TAB, "\t")
    if delimiter in DELIMITERS or any(word in kind for word in Csv.types):
        return _csv(page, delimiter)
    if "ndjson" in kind or "jsonl" in kind:
        return Call("ndjson"), ndjson()(page)
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
