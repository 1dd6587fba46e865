"""The certificate: what disturbed the loads, and what became of the rows, on one page."""

from collections import Counter
from collections.abc import Sequence

from commands.prove.trials import Case

# What to declare against a fault that loses or doubles rows, by the beginning of its name.
REMEDIES = {
    "killed": "a `key`, so that a repeated page replaces its rows",
    "empty": '`Rule("fail", status=200, body=r"^\\s*$")`, so that an empty body is no empty page',
    "answer": '`Rule("fail", body=…)` with words of the error that the API reports beside its data',
}
OTHER_REMEDY = "a `key`; if it has one, report it as a fault of the pipeline"


def certificate(source: str, cases: Sequence[Case], seconds: float, is_whole: bool = True) -> str:
    """The page, in Markdown."""
    lost, doubled = sum(case.lost for case in cases), sum(case.doubled for case in cases)
    rows = {case.resource: case.rows for case in cases}
    counted = ", ".join(f"{name} ({count} rows)" for name, count in rows.items())
    lines = [
        f"# Loads of {source} under faults and kills",
        "",
        f"Recorded answers of {counted} were loaded {len(cases)} times in {seconds:.0f} s, and "
        f"each load was disturbed. **Lost: {lost} rows. Doubled: {doubled} rows.** "
        f"Requests repeated: {sum(case.repeated for case in cases)}.",
        "",
        "| disturbed by | loads | went on | stopped with | requests repeated | lost | doubled |",
        "|---|--:|--:|---|--:|--:|--:|",
        *(_row(name, cases) for name in dict.fromkeys(case.disturbance for case in cases)),
        "",
        "A load that stopped was run again without the disturbance. "
        "docs/testing-your-source.md explains the names.",
        "",
        *_not_survived(cases),
        *_vacant([name for name, count in rows.items() if not count]),
        *(
            []
            if is_whole
            else ["**The time was over before all was tried:** RESOURCE=…, MINUTES=60.", ""]
        ),
    ]
    return "\n".join(lines)


def _vacant(resources: Sequence[str]) -> list[str]:
    """Of what nothing is proved."""
    if not resources:
        return []
    names = ", ".join(resources)
    return [f"**Nothing is proved of {names}: the recording has no rows.** Record it again.", ""]


def _row(name: str, cases: Sequence[Case]) -> str:
    its = [case for case in cases if case.disturbance == name]
    errors = Counter(case.error.partition(":")[0] for case in its if case.error)
    stopped = ", ".join(f"{count} {error}" for error, count in errors.items())
    numbers = [sum(getattr(case, field) for case in its) for field in ("repeated", "lost")]
    doubled = sum(case.doubled for case in its)
    went_on = len(its) - errors.total()
    return (
        f"| {name} | {len(its)} | {went_on} | {stopped} | {numbers[0]} | {numbers[1]} | {doubled} |"
    )


def _not_survived(cases: Sequence[Case]) -> list[str]:
    """What would lose or double rows, and the declaration that mends it."""
    bad = [case for case in cases if case.is_bad]
    if not bad:
        return ["No fault of this table loses or doubles a row.", ""]
    lines = ["Not survived:", ""]
    for (resource, name), count in Counter(
        (each.resource, each.disturbance) for each in bad
    ).items():
        remedy = next((text for word, text in REMEDIES.items() if name.startswith(word)), "")
        if name[:3].isdigit():
            remedy = "no `Rule` that ignores this status, or one with words of its `body`"
        lines.append(f"* {resource}, {name} ({count} loads): declare {remedy or OTHER_REMEDY}.")
    return [*lines, *sorted({f"* {case.failure}" for case in bad if case.failure}), ""]
