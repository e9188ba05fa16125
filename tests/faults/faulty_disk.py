"""The operating system's disk with faults that a test arms from outside of the process.

Rules are read from a JSON file whenever it has changed, so that a broker starts and is filled
in peace before the fault is armed. A rule is a dictionary:

    operation   name of a Disk or DiskFile call ("pwritev", "rename", ...), or "fault_point"
    path        pattern of the whole path (fnmatch); of a fault point: of its name
    skip        how many matching calls pass first; 0 if not given
    times       how many calls it then concerns; without it, all
    when        "before" (the default), "after", or, of pwritev, "torn": half is written first
    do          "kill" (SIGKILL to this process), "stall" (until the rule is gone),
                "slow" (a pause of `seconds`), or the name of an errno ("EIO")
"""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from fnmatch import fnmatchcase
from typing import Any

from trioq.storage.disk import OsDisk, OsFile

Rule = dict[str, Any]


class Faults:
    """The rules in force; any thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._rules: list[tuple[Rule, list[int]]] = []
        self._lock = threading.Lock()

    def _current(self) -> list[tuple[Rule, list[int]]]:
        try:
            status = os.stat(self._path)  # noqa: PTH116
        except FileNotFoundError:
            self._stamp, self._rules = None, []
            return self._rules
        stamp = (status.st_ino, status.st_mtime_ns)
        if stamp != self._stamp:
            with open(self._path, encoding="utf-8") as file:  # noqa: PTH123
                self._rules = [(rule, [0]) for rule in json.load(file)]
            self._stamp = stamp
        return self._rules

    def due(self, operation: str, path: str) -> Rule | None:
        """The rule that concerns this call, which counts as made."""
        with self._lock:
            for rule, hits in self._current():
                if rule["operation"] != operation or not fnmatchcase(path, rule["path"]):
                    continue
                hits[0] += 1
                past = hits[0] - rule.get("skip", 0)
                if past >= 1 and past <= rule.get("times", past):
                    return rule
        return None

    def strike(self, rule: Rule | None, when: str) -> None:
        """Do what the rule says if it is for this moment."""
        if rule is None or rule.get("when", "before") != when:
            return
        what = rule["do"]
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # the signal comes before this thread goes on
        elif what == "slow":
            time.sleep(rule["seconds"])
        elif what == "stall":
            while any(one == rule for one, _ in self._current()):
                time.sleep(0.01)
        else:
            number = getattr(errno, what)
            raise OSError(number, os.strerror(number))


class FaultyFile(OsFile):
    """An open file whose calls may fail."""

    __slots__ = ("_faults", "_path")

    def __init__(self, file: OsFile, path: str, faults: Faults) -> None:
        super().__init__(os.dup(file.fileno()))
        file.close()
        os.set_inheritable(self._fd, False)
        self._path = path
        self._faults = faults

    def pread(self, length: int, position: int) -> bytes:
        self._faults.strike(self._faults.due("pread", self._path), "before")
        return super().pread(length, position)

    def pwritev(self, buffers: list[Any], position: int) -> float:
        started_s = time.perf_counter()
        rule = self._faults.due("pwritev", self._path)
        if rule is not None and rule.get("when") == "torn":
            data = b"".join(buffers)
            super().pwritev([data[: len(data) // 2]], position)
            self._faults.strike(rule, "torn")
        self._faults.strike(rule, "before")
        super().pwritev(buffers, position)
        self._faults.strike(rule, "after")
        return time.perf_counter() - started_s

    def truncate(self, size: int) -> None:
        rule = self._faults.due("truncate", self._path)
        self._faults.strike(rule, "before")
        super().truncate(size)
        self._faults.strike(rule, "after")

    def fdatasync(self) -> None:
        rule = self._faults.due("fdatasync", self._path)
        self._faults.strike(rule, "before")
        super().fdatasync()
        self._faults.strike(rule, "after")


class FaultyDisk(OsDisk):
    """The disk of one broker, by the rules in a file."""

    __slots__ = ("_faults",)

    def __init__(self, rules_path: str) -> None:
        self._faults = Faults(rules_path)

    def open(self, path: str, *, create: bool = False) -> OsFile:
        rule = self._faults.due("open", path)
        self._faults.strike(rule, "before")
        return FaultyFile(super().open(path, create=create), path, self._faults)

    def fault_point(self, name: str) -> None:
        self._faults.strike(self._faults.due("fault_point", name), "before")


def _guarded(name: str) -> Any:
    original = getattr(OsDisk, name)

    def call(self: FaultyDisk, path: str, *arguments: Any, **options: Any) -> Any:
        rule = self._faults.due(name, path)
        self._faults.strike(rule, "before")
        result = original(self, path, *arguments, **options)
        self._faults.strike(rule, "after")
        return result

    return call


for _name in (
    "write_file",
    "replace_file",
    "sync_file",
    "make_directory",
    "rename",
    "unlink",
    "remove_tree",
    "fsync_dir",
    "listdir",
):
    setattr(FaultyDisk, _name, _guarded(_name))
