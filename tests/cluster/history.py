"""What producers and consumers did and were told, in the order in which they were told it.

A history is a list of events, one JSON object a line in a file, each with "f", what happened, and
"process", who it happened to. A process is one client instance: who starts again has a new name.

    send     partition, value, [txn]      a message was handed to the producer; values are unique
    sent     value, outcome, [offset]     "ok", "fail" (certainly not stored) or "unknown"
    txn      txn, outcome                 a transaction ended: "commit", "abort" or "unknown"
    assign   partitions                   [[partition, offset or null], ...]: reading starts there
    poll     records                      [[partition, offset, value], ...] as they were returned
    end      partition, offset            the consumer was told where the partition ends
    refused  partition, error             the consumer was told that its position does not exist
    commit   group, partition, offset     a member's commit was acknowledged
    asks_committed  group                 a member asks for committed positions
    committed  group, partition, offset   it is told; an offset below 0 is none
    drained  partitions                   what this process read since its last assign is all that
                                          these partitions hold, from their start, after healing
    note     text                         a fault, for who reads the history; process is null

An "ok" without an offset is one that the client learnt nothing of (a retry that found its
message stored already).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Event = dict[str, Any]


class History:
    """Collects events from many threads; each is in the file, if there is one, when noted."""

    def __init__(self, path: Path | None = None) -> None:
        self.events: list[Event] = []
        self._file = path.open("a") if path is not None else None
        self._lock = threading.Lock()
        self._start_s = time.monotonic()

    def add(self, f: str, process: str | None, **fields: Any) -> None:
        event = {"f": f, "process": process, **fields}
        with self._lock:
            event["ms"] = int((time.monotonic() - self._start_s) * 1000)
            self.events.append(event)
            if self._file is not None:
                self._file.write(json.dumps(event, separators=(",", ":")) + "\n")

    def note(self, text: str) -> None:
        """Put a fault into the history."""
        self.add("note", None, text=text)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def read_history(path: Path) -> list[Event]:
    """The events of a file."""
    with path.open() as file:
        return [json.loads(line) for line in file]


def write_history(events: Iterable[Event], path: Path) -> None:
    with path.open("w") as file:
        file.writelines(json.dumps(event, separators=(",", ":")) + "\n" for event in events)
