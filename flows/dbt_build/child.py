"""dbt's commands, one after the other, in a process that ends when its parent does.

The parent holds the other end of stdin: when it is gone, however it ended, so is dbt. The commands
are a JSON list of lists of words. What dbt says goes to stdout, an event a line, as JSON; of its
debug messages, which are thousands, only those that say how a node ended. The process fails when
one of the commands did, after all have been run.
"""

import gc
import json
import os
import sys
import threading

PARENT_IS_GONE = 3
QUIET = ("--log-level", "none", "--log-level-file", "debug")


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(PARENT_IS_GONE)


def main() -> None:
    """Run the commands, and exit."""
    from dbt.cli.main import dbtRunner
    from dbt_common.events.base_types import EventMsg
    from dbt_common.events.functions import msg_to_json

    def tell(event: EventMsg) -> None:
        if event.info.level != "debug" or event.info.name == "NodeFinished":
            sys.stdout.write(f"{msg_to_json(event)}\n")
            sys.stdout.flush()

    commands = json.loads(sys.argv[1])
    outcomes = [dbtRunner(callbacks=[tell]).invoke([*command, *QUIET]) for command in commands]
    for outcome in outcomes:
        if outcome.exception is not None:
            sys.stdout.write(f"{outcome.exception}\n")
    gc.freeze()  # or Python would look through all that dbt made, for a third of a second
    sys.exit(not all(outcome.success for outcome in outcomes))


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    main()
