"""Faults in what is listed: rows that come twice, late, moved or changed, links that lead astray.

What happens to the rows happens before the answer and lasts until faults are planned anew; what
happens to links, to one answer.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from tests.fault_api.catalogue.items import Row, item
from tests.fault_api.exchange import Ask, AskError
from tests.fault_api.turn import Turn
from tests.fault_api.wrong_answers import destination

Rows = tuple[Row, ...]

LIST_PATHS = ("/styles/", "/formats/", "/login/")
PAGED_PATHS = ("/styles/", "/login/")
UNPAGED_PATHS = {"/styles/none", "/styles/windows"}
LINKED_PATHS = ("/styles/next_url", "/styles/next_path", "/styles/link_header", "/login/")


def late(turn: Turn, *, rows: int = 2) -> None:
    """The first rows turn up at the end of the list only."""
    _serve(turn, lambda listed: listed[rows:] + listed[:rows])


def duplicate(turn: Turn, *, rows: int = 2, every: int = 10) -> None:
    """Each page of `every` rows begins with the last rows of the page before."""

    def repeated(listed: Rows) -> Rows:
        done, rest = listed[:every], listed[every:]
        while rest:
            done += done[-rows:] + rest[: every - rows]
            rest = rest[every - rows :]
        return done

    _serve(turn, repeated)


def moving(turn: Turn, *, rows: int = 1) -> None:
    """New rows come in at the front, so that all others move on; below zero, so many go away."""

    def moved(listed: Rows) -> Rows:
        if rows < 0:
            return listed[-rows:]
        first = min((row["id"] for row in listed), default=1)
        return tuple(item(number) for number in range(first - rows, first)) + listed

    _serve(turn, moved)


def changed_schema(
    turn: Turn,
    *,
    from_id: int = 0,
    new_field: bool = True,
    other_type: bool = True,
    field_gone: bool = True,
) -> None:
    """Rows gain `currency`, have their `price` as a text, and lose their `name`."""

    def changed(row: Row) -> Row:
        if row["id"] < from_id:
            return row
        fields = dict(row)
        if new_field:
            fields["currency"] = "EUR"
        if other_type:
            fields["price"] = str(row["price"])
        if field_gone:
            fields.pop("name", None)
        return fields

    _serve(turn, lambda listed: tuple(changed(row) for row in listed))


def loop(turn: Turn, *, pages: int = 1) -> None:
    """After so many pages comes the first of them again: A→A for 1, A→B→A for 2.

    A link or token leads there; a client that counts by itself gets the same rows again.
    """
    turn.only_below(*PAGED_PATHS)
    if turn.ask.path in UNPAGED_PATHS:
        raise AskError(f"{turn.ask.path} has no pages to loop through.", 501)
    catalogue = turn.api.catalogue
    listing = replace(catalogue.listing, loop_parts=pages)
    turn.send(turn.answer(replace(catalogue, listing=listing)))


def next_link(turn: Turn, *, to: str = "other_host", location: str = "") -> None:
    """The next link leads to a destination of `redirect`, with the next page's path and query."""
    turn.only_below(*LINKED_PATHS)
    catalogue = turn.api.catalogue
    start = turn.ask.whole("position", 0) + turn.ask.whole("limit", 10, least=1)
    following = Ask("GET", turn.ask.link(position=start), base=turn.ask.base)
    listing = replace(
        catalogue.listing, next_link=destination(replace(turn, ask=following), to, location)
    )
    turn.send(turn.answer(replace(catalogue, listing=listing)))


def expired_tokens(turn: Turn) -> None:
    """All access tokens issued so far are refused from now on."""
    turn.api.catalogue.tokens.expire()
    turn.send(turn.answer())


def short_token(turn: Turn, *, requests: int = 1, expires_in: int = 3600) -> None:
    """The token issued now is good for so many requests, whatever `expires_in` promises."""
    turn.only_below("/oauth/token")
    catalogue = turn.api.catalogue
    terms = replace(catalogue, token_requests=requests, token_seconds=expires_in)
    turn.send(turn.answer(terms))


def _serve(turn: Turn, change: Callable[[Rows], Rows]) -> None:
    turn.only_below(*LIST_PATHS)
    catalogue = turn.api.catalogue
    listing = replace(catalogue.listing, rows=change(catalogue.listing.rows))
    turn.api.catalogue = replace(catalogue, listing=listing)
    turn.send(turn.answer())


FAULTS: Mapping[str, Callable[..., None]] = {
    fault.__name__: fault
    for fault in (
        late,
        duplicate,
        moving,
        changed_schema,
        loop,
        next_link,
        expired_tokens,
        short_token,
    )
}
