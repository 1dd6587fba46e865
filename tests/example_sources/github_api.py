"""A GitHub of issues and comments, as its REST API describes them, in memory."""

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.http_servers import Answer, Asked

TOKEN = "github_pat_11AAAA0a"  # noqa: S105 (made up)
REPOSITORIES = {"octocat/hello-world": 1296269, "octocat/spoon-knife": 1300192}
LARGEST_PAGE = 10
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_PATH = re.compile(r"/(?:repos/([^/]+/[^/]+)|repositories/(\d+))/issues(?:/(\d+)/comments)?")

Record = dict[str, Any]


class GitHub:
    """Two repositories; their issues are sent newest first, as by `sort=updated`.

    Attributes:
        before: called with each request that is logged in; may return another answer.
        turned_off: the repositories whose issues are turned off.
    """

    def __init__(self) -> None:
        self.before: Callable[[Asked], Answer | None] = lambda asked: None
        self.turned_off: set[str] = set()
        self.issues: dict[str, list[Record]] = {}
        self.comments: dict[int, list[Record]] = {}
        for name, repository in REPOSITORIES.items():
            self.issues[name] = [self._issue(repository, n) for n in range(1, 24)]

    def _issue(self, repository: int, number: int) -> Record:
        key = repository * 1000 + number
        self.comments[key] = [
            {"id": key * 100 + n, "body": f"Kommentar {n} – ✓", "user": {"login": "octocat"}}
            for n in range(number % 4 * 4)
        ]
        return {
            "id": key,
            "number": number,
            "title": f"Issue {number}",
            "state": "closed" if number % 3 else "open",
            "labels": [{"id": number, "name": "bug"}],
            "comments": len(self.comments[key]),
            "updated_at": f"2026-03-{number:02}T08:00:00Z",
        }

    def comment(self, repository: str, number: int, at: str) -> None:
        """Add a comment, which changes its issue."""
        [issue] = [each for each in self.issues[repository] if each["number"] == number]
        comments = self.comments[issue["id"]]
        comments.append(
            {"id": issue["id"] * 100 + len(comments), "body": "late", "user": {"login": "hubot"}}
        )
        issue |= {"comments": len(comments), "updated_at": at}

    def __call__(self, asked: Asked) -> Answer:
        if not asked.headers["User-Agent"]:
            return _refusal(403, "Request forbidden by administrative rules.")
        if asked.headers["Authorization"] != f"Bearer {TOKEN}":
            return _refusal(401, "Bad credentials")
        if other := self.before(asked):
            return other
        address = urlsplit(asked)
        found = _PATH.fullmatch(address.path)
        names = {str(number): name for name, number in REPOSITORIES.items()}
        repository = found and (found[1] or names.get(found[2]))
        if not found or repository not in REPOSITORIES:
            return _refusal(404, "Not Found")
        if repository in self.turned_off:
            return _refusal(410, "Issues are disabled for this repo")
        query = {name: value for name, [value] in parse_qs(address.query).items()}
        rows = self._wanted(repository, found[3], query)
        return rows if isinstance(rows, Answer) else _page(asked, found, repository, query, rows)

    def _wanted(
        self, repository: str, number: str | None, query: dict[str, str]
    ) -> list[Record] | Answer:
        if number:
            issue = next((i for i in self.issues[repository] if i["number"] == int(number)), None)
            return self.comments[issue["id"]] if issue else _refusal(404, "Not Found")
        since = query.get("since", "0000-01-01T00:00:00Z")
        if not _TIME.fullmatch(since) or query.get("sort") != "updated":
            return _refusal(422, "Validation Failed")
        is_newest_first = query.get("direction", "desc") == "desc"
        chosen = [each for each in self.issues[repository] if each["updated_at"] >= since]
        return sorted(
            chosen, key=lambda each: (each["updated_at"], each["id"]), reverse=is_newest_first
        )


def _page(
    asked: Asked, found: re.Match[str], repository: str, query: dict[str, str], rows: list[Record]
) -> Answer:
    """A page; links lead to the repository's number, not to its name."""
    size = min(int(query.get("per_page", 30)), LARGEST_PAGE)
    number = int(query.get("page", 1))
    headers = {"Content-Type": "application/json; charset=utf-8"}
    if number * size < len(rows):
        path = f"repositories/{REPOSITORIES[repository]}/issues"
        path += f"/{found[3]}/comments" if found[3] else ""
        url = f"http://{asked.headers['Host']}/{path}?" + urlencode({**query, "page": number + 1})
        headers["Link"] = f'<{url}>; rel="next", <{url}&last>; rel="last"'
    return Answer(json.dumps(rows[(number - 1) * size : number * size]).encode(), headers=headers)


def _refusal(status: int, message: str, **headers: str) -> Answer:
    document = {"message": message, "documentation_url": "https://docs.github.com/rest"}
    return Answer(
        json.dumps(document).encode(), status, {"Content-Type": "application/json"} | headers
    )


def limited(reset_at: int) -> Answer:
    """The hour's requests are used up."""
    answer = _refusal(403, "API rate limit exceeded for user ID 1.")
    answer.headers.update({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(reset_at)})
    return answer


def limited_for_a_while(seconds: int) -> Answer:
    """The secondary limit: too much at once."""
    answer = _refusal(429, "You have exceeded a secondary rate limit.")
    answer.headers["Retry-After"] = str(seconds)
    return answer
