"""GitHub: the issues of repositories, with their comments (https://docs.github.com/rest/issues).

Secret `github-token`: a fine-grained token with read access to issues.
"""

from flows.extract.auth import Bearer
from flows.extract.paginators import next_link
from flows.extract.selectors import records_at
from flows.source import Cursor, Partition, Resource, RowsOf, Rule, Source

HEADERS = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
REPOSITORIES = tuple(
    Partition(f"{owner}/{repo}", {"owner": owner, "repo": repo})
    for owner, repo in (("octocat", "hello-world"), ("octocat", "spoon-knife"))
)

SOURCE = Source(
    name="github",
    base_url="https://api.github.com/",
    login=Bearer("github-token"),
    # It allows 5,000 requests an hour, and then answers 403 or 429 until the next hour begins.
    max_wait_seconds=3700,
    resources=(
        # Pull requests are issues here: those have a `pull_request`. The newest come first: one
        # that changes meanwhile moves to the front, so pages repeat an issue and leave out none.
        Resource(
            name="issues",
            path="repos/{owner}/{repo}/issues",
            params={
                "state": "all",
                "sort": "updated",
                "direction": "desc",
                "since": "{since:%Y-%m-%dT%H:%M:%SZ}",
                "per_page": 100,
            },
            headers=HEADERS,
            records=records_at(),
            paging=next_link(),
            key=("id",),
            key_is_global=True,
            cursor=Cursor("updated_at"),
            partitions=REPOSITORIES,
            partition_columns=("owner", "repo"),
            rules=(Rule("ignore", status=410),),  # issues are turned off
        ),
        # A new or edited comment changes its issue's `updated_at`.
        Resource(
            name="comments",
            path="repos/{owner}/{repo}/issues/{number}/comments",
            params={"per_page": 100},
            headers=HEADERS,
            records=records_at(),
            paging=next_link(),
            key=("id",),
            key_is_global=True,
            partitions=RowsOf(
                "issues",
                {"owner": "owner", "repo": "repo", "number": "number"},
                changed_only=True,
            ),
            partition_columns=("owner", "repo", "number"),
            rules=(Rule("ignore", status=404),),  # moved to another repository
        ),
    ),
)
