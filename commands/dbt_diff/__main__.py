"""`make dbt-diff`: build the changed models in separate schemas, and compare with the published."""

import argparse
import getpass
import os
import re
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from psycopg2.extensions import cursor as Cursor

from commands import local_warehouse
from commands.dbt_diff.build import Trial, audited, drop, trial
from commands.dbt_diff.compare import compare, key_of
from commands.local_warehouse import add_database_arguments, database_name
from flows.dbt_build.node_results import is_done
from flows.dbt_build.publish import RelationName
from flows.errors import EltError


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, print the differences, and drop the schemas again; 1 when a node failed."""
    parser = argparse.ArgumentParser(prog="make dbt-diff", description=__doc__)
    parser.add_argument("--name", default="", help="the schemas' suffix; by default your user name")
    parser.add_argument("--audit", action="store_true", help="compare what a failed build left")
    parser.add_argument("--drop", action="store_true", help="only drop what a killed trial left")
    add_database_arguments(parser)
    given = parser.parse_args(arguments)
    name = given.name or re.sub(r"[^a-z0-9]+", "_", f"trial_{getpass.getuser()}".lower())[:30]
    database = database_name(given.api, given.scale)
    try:
        with local_warehouse.warehouse(os.environ, given.home, database) as warehouse:
            if given.drop:
                if others := drop(warehouse, name):
                    print(f"Not created by a trial, so not dropped: {', '.join(others)}.")
                return 0
            if given.audit:
                with warehouse.transaction() as cursor:
                    return _print_report(cursor, audited(cursor))
            with trial(warehouse, name) as built, warehouse.transaction() as cursor:
                return _print_report(cursor, built)
    except EltError as error:
        print(f"FAILED: {error}")
        return 1


def _print_report(cursor: Cursor, built: Trial) -> int:
    print("\n".join(report(cursor, built)), flush=True)
    return 0 if all(map(is_done, built.results)) else 1


def report(cursor: Cursor, built: Trial) -> list[str]:
    """Lines that state what was built, what failed, and what differs."""
    if not built.results:
        return ["The working tree changes no model: nothing was built."]
    lines = [f"Excluded: dependants of {', '.join(built.left_out)}."] if built.left_out else []
    nodes = built.manifest["nodes"]
    for result in built.results:
        node = nodes.get(result["unique_id"], {})
        if not is_done(result):
            lines.append(f"{result['status'].upper()} {result['unique_id']}: {result['message']}")
        elif node.get("resource_type") in ("model", "seed") and node.get("relation_name"):
            lines += _compared(cursor, built, result["unique_id"])
    done = sum(map(is_done, built.results))
    return [*lines, f"{done} of {len(built.results)} nodes succeeded in *{built.suffix}."]


def _compared(cursor: Cursor, built: Trial, unique_id: str) -> list[str]:
    node = built.manifest["nodes"][unique_id]
    new = RelationName(node["schema"], node["alias"])
    old = RelationName(node["schema"].removesuffix(built.suffix), node["alias"])
    return compare(cursor, old, new, key_of(built.manifest, unique_id))


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())
