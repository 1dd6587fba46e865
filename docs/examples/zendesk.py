"""Zendesk: tickets with their comments, and users, by incremental exports.

https://developer.zendesk.com/api-reference/ticketing/ticket-management/incremental_exports/
Secret `zendesk-token`: an API token of the agent. Replace `example` by your subdomain.
"""

from flows.extract.auth import Basic
from flows.extract.paginators import next_url, unless
from flows.extract.selectors import records_at
from flows.source import Resource, RowsOf, Rule, Source, TokenCursor


def export(name: str) -> Resource:
    """All objects, and later those that are new or changed; deleted tickets with that status."""
    return Resource(
        name=name,
        path=f"incremental/{name}/cursor.json",
        params={"start_time": 1, "per_page": 1000},
        records=records_at(name),
        # The last page has an `after_url` too: the next load begins there.
        paging=next_url("after_url", more=unless("end_of_stream")),
        key=("id",),
        cursor=TokenCursor("after_url", is_link=True),
    )


SOURCE = Source(
    name="zendesk",
    base_url="https://example.zendesk.com/api/v2/",
    login=Basic("agent@example.com/token", "zendesk-token"),
    # Exports may be asked for ten times a minute; then 429 says for how long to wait.
    max_wait_seconds=900,
    resources=(
        export("tickets"),
        export("users"),
        # A comment changes its ticket.
        Resource(
            name="comments",
            path="tickets/{ticket_id}/comments.json",
            params={"page[size]": 100},
            records=records_at("comments"),
            paging=next_url("links.next", more="meta.has_more"),
            key=("id",),
            key_is_global=True,
            partitions=RowsOf(
                "tickets",
                {"ticket_id": "id"},
                where={"status": ["new", "open", "pending", "hold", "solved", "closed"]},
                changed_only=True,
            ),
            partition_columns=("ticket_id",),
            rules=(Rule("ignore", status=404),),  # deleted meanwhile
        ),
    ),
)
