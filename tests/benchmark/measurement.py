"""One measurement in a process of its own: `python -m tests.benchmark.measurement <task> <answer>`.

Both are JSON files. The clock starts when everything is imported.
"""

import json
import resource
import sys
import time
from importlib import import_module
from pathlib import Path

from tests.benchmark.tools import Task

STATUS = Path("/proc/self/status")


def main() -> None:
    """Load, and write down how long it took and how much memory this process had at its peak."""
    task_file, answer_file = map(Path, sys.argv[1:])
    task = Task(**json.loads(task_file.read_text()))
    load = import_module(f"tests.benchmark.{task.module}").load
    started = time.perf_counter()
    more = load(task) or {}
    seconds = time.perf_counter() - started
    answer = {"seconds": seconds, "peak_rss_mib": peak_rss_mib()}
    answer_file.write_text(json.dumps(answer | more))


def peak_rss_mib(status: Path = STATUS) -> float:
    """The peak of this process, or of the one whose status in /proc is given.

    On Linux from /proc: there `ru_maxrss` begins at the peak of the process that started this.
    """
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024**2 if sys.platform == "darwin" else peak / 1024


if __name__ == "__main__":
    main()
