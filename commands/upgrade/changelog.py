"""What CHANGELOG.md says that it did not say before."""

import re
from collections.abc import Iterator

PATH = "CHANGELOG.md"
_ENTRY = re.compile(r"^- .*(?:\n(?![-#]).*)*", re.MULTILINE)
_ENTRY_OR_HEADING = re.compile(rf"^##.*|{_ENTRY.pattern}", re.MULTILINE)


def new_entries(before: str, after: str) -> str:
    """The entries of `after` that `before` lacks, under their headings; empty if there are none."""
    known = {entry.strip() for entry in _ENTRY.findall(before)}
    return "\n".join(_with_headings(after, known)).strip()


def _with_headings(text: str, known: set[str]) -> Iterator[str]:
    """The entries that are not known, each behind the headings that it is the first below."""
    version = kind = ""
    for found in (each.strip() for each in _ENTRY_OR_HEADING.findall(text)):
        if found.startswith("###"):
            kind = f"\n{found}"
        elif found.startswith("##"):
            version, kind = f"\n{found}", ""
        elif found not in known:
            yield from filter(None, (version, kind, found))
            version = kind = ""
