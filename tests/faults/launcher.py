"""`python -m tests.faults.launcher CONTROL_DIR serve ...`: a broker in a world that can be bent.

CONTROL_DIR may hold, all read by this process:

    rules.json        faults of the disk: see faulty_disk.py
    clock_ms          what to add to the wall clock now, in ms
    max_descriptors   limit of file descriptors, when the process starts
"""

from __future__ import annotations

import os
import resource
import sys
from functools import partial
from pathlib import Path

from tests.faults.faulty_disk import FaultyDisk
from trioq import process
from trioq.broker import Broker
from trioq.cli import main
from trioq.clock import SystemClock


class BentClock(SystemClock):
    """The machine's clocks, the wall clock moved by what a file says."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def now_ms(self) -> int:
        try:
            with open(self._path, encoding="ascii") as file:  # noqa: PTH123
                offset_ms = int(file.read() or 0)
        except FileNotFoundError:
            offset_ms = 0
        return super().now_ms() + offset_ms


def launch(control: Path) -> None:
    """Run the command line with another disk and clock."""
    limit = control / "max_descriptors"
    if limit.exists():
        count = int(limit.read_text())
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))
    process.Broker = partial(  # type: ignore[misc, assignment]
        Broker,
        disk=FaultyDisk(str(control / "rules.json")),
        clock=BentClock(control / "clock_ms"),
    )
    main()


if __name__ == "__main__":
    where = Path(sys.argv.pop(1))
    os.environ.setdefault("PYTHONFAULTHANDLER", "1")
    launch(where)
