"""`make new-source`: asks an API once and writes a source module, its dbt source and staging model.

What it writes is a beginning that works: a person reviews the key, the casts and the descriptions.
"""

import argparse
import re
import sys
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from deployments.local import suggest
from deployments.local.drafts import Draft, next_steps, write
from flows.declaration import Login, Page, Partition, Record, Resource, Source, Window
from flows.errors import ConfigurationError, EltError
from flows.extract.auth import ApiKey, Bearer
from flows.extract.charsets import in_utf8
from flows.extract.client import Client
from flows.extract.pages import first_request
from flows.extract.records import csv_rows, ndjson, record_at, records_at
from flows.load.names import column_name

ROOT = Path(__file__).resolve().parents[2]
NAME = re.compile(r"[a-z][a-z0-9_]*")


def main() -> int:
    """Write the files, or say why not; nothing is written then."""
    parser = argparse.ArgumentParser(prog="make new-source", description=__doc__)
    parser.add_argument("--name", required=True, help="of the source, e.g. github")
    parser.add_argument("--url", required=True, help="of one resource, with its parameters")
    parser.add_argument("--records", default="", help="where the records are, e.g. data.items")
    parser.add_argument("--key", default="", help="the fields that identify a record: id,line")
    parser.add_argument("--login", default="", help="bearer:NAME, header:H:NAME or param:P:NAME")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository to write to")
    arguments = parser.parse_args()
    try:
        draft = drafted(
            arguments.name, arguments.url, arguments.records, arguments.key, arguments.login
        )
        written = write(draft, arguments.root)
    except EltError as error:
        print(f"FAILED: {error}")
        return 1
    print("Written:\n" + "\n".join(f"  {path.relative_to(arguments.root)}" for path in written))
    print(next_steps(draft))
    return 0


def drafted(name: str, url: str, records: str, key: str, login: str) -> Draft:
    """Ask the API once and draw conclusions.

    Raises:
        ConfigurationError: when the name or the URL can't be used, or the answer has no records.
        EltError: as `Client.get` does.
    """
    if NAME.fullmatch(name) is None:
        raise ConfigurationError(f"NAME={name} must be lower case letters, digits and underscores.")
    parts = urlsplit(url)
    folder, _, last = parts.path.rstrip("/").rpartition("/")
    if parts.scheme not in {"http", "https"} or not parts.netloc or not last:
        raise ConfigurationError(f"URL={url} must name one resource: https://host/path/orders")
    base_url = f"{parts.scheme}://{parts.netloc}{folder}/"
    text, credentials = _login(login)
    params = dict(parse_qsl(parts.query, keep_blank_values=True))
    resource = Resource(
        name=column_name(last.split(".")[0]), path=last, records=records_at(), params=params
    )
    source = Source(name, base_url, (resource,), login=credentials)
    with Client(source) as client:
        page = client.get(first_request(source, resource, Partition(), Window()))
    page.body = in_utf8(page, resource)
    found, rows = _records(page, records)
    if not rows:
        raise ConfigurationError(f"{url} answered no records: try it with parameters that do.")
    guessed = suggest.key(rows, resource.name)
    keys = tuple(filter(None, key.split(","))) or ((guessed,) if guessed else ())
    unknown = [field for field in keys if field not in rows[0]]
    if unknown:
        known = ", ".join(rows[0])
        raise ConfigurationError(f"KEY={key}: there is no {unknown[0]!r}. There are: {known}.")
    return Draft(
        name,
        base_url,
        resource.name,
        last,
        params,
        found,
        suggest.paging(page),
        keys,
        text,
        suggest.columns(rows, keys),
    )


def _login(text: str) -> tuple[str, Login | None]:
    """The login as source text, and as it is used now; its secret is read from the environment."""
    kind, *rest = text.split(":")
    if kind == "" and not rest:
        return "", None
    if kind == "bearer" and len(rest) == 1:
        return f'Bearer("{rest[0]}")', Bearer(rest[0])
    if kind == "header" and len(rest) == 2:
        return f'ApiKey("{rest[1]}", header="{rest[0]}")', ApiKey(rest[1], header=rest[0])
    if kind == "param" and len(rest) == 2:
        return f'ApiKey("{rest[1]}", param="{rest[0]}")', ApiKey(rest[1], param=rest[0])
    raise ConfigurationError(
        f"LOGIN={text} must be bearer:SECRET, header:HEADER:SECRET or param:PARAMETER:SECRET; "
        "SECRET is the name under which the secret is kept, e.g. github-token."
    )


def _records(page: Page, wanted: str) -> tuple[str, list[Record]]:
    """The call that finds the records, as source text, and what it finds."""
    kind = page.content_type.lower()
    if "csv" in kind:
        return "csv_rows()", csv_rows()(page)
    if "ndjson" in kind or "jsonl" in kind:
        return "ndjson()", ndjson()(page)
    path = wanted or suggest.records_path(page.document)
    if path is None:
        return "record_at()", record_at()(page)
    return f'records_at("{path}")' if path else "records_at()", records_at(path)(page)


if __name__ == "__main__":
    sys.exit(main())
