"""dbt's commands, one after the other, in a process that ends when its parent does.

The parent holds the other end of stdin: when it is gone, however it ended, so is dbt. The commands
are a JSON list of lists of words. The process fails when one of them did, after all have been run.
"""

import json
import os
import sys
import threading

PARENT_IS_GONE = 3


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(PARENT_IS_GONE)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from dbt.cli.main import dbtRunner

    outcomes = [dbtRunner().invoke(command) for command in json.loads(sys.argv[1])]
    for outcome in outcomes:
        if outcome.exception is not None:
            sys.stdout.write(f"{outcome.exception}\n")
    sys.exit(not all(outcome.success for outcome in outcomes))
