"""dbt's command line in a process that ends when its parent does.

The parent holds the other end of stdin: when it is gone, however it ended, so is dbt.
"""

import os
import sys
import threading

PARENT_IS_GONE = 3


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(PARENT_IS_GONE)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from dbt.cli.main import cli

    cli()
