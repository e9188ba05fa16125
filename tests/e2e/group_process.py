"""Members of a group as processes: started, watched, stopped, paused and killed by tests."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WAIT_S = 40.0

Partition = tuple[str, int]


class Member:
    """One consumer process; `events` are what it printed, in order.

    Of kcat, whose lines are turned into the same events, `closed` is missing.
    """

    def __init__(self, command: list[str], *, name: str) -> None:
        self.name = name
        self.events: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        readers = [(self._process.stdout, self._line), (self._process.stderr, self._error_line)]
        self._readers = [
            threading.Thread(target=self._read, args=reader, daemon=True) for reader in readers
        ]
        for reader in self._readers:
            reader.start()

    @classmethod
    def start(cls, client: str, address: str, group: str, **settings: Any) -> Member:
        """A member of `client` ("confluent", "aiokafka", "kafka-python" or "kcat")."""
        if client == "kcat":
            return KcatMember.start_kcat(address, group, **settings)
        given = {"client": client, "address": address, "group": group, **settings}
        command = [sys.executable, "-W", "ignore", "-m", "tests.e2e.group_member"]
        return cls([*command, json.dumps(given)], name=client)

    # ---- what it says

    @property
    def assigned(self) -> set[Partition] | None:
        """What it owns now; None before it was told."""
        with self._changed:
            for event in reversed(self.events):
                if "assigned" in event:
                    return {(topic, number) for topic, number in event["assigned"]}
        return None

    @property
    def processed(self) -> list[str]:
        """The values of the records that it has processed."""
        with self._changed:
            return [event["processed"][3] for event in self.events if "processed" in event]

    def assignments(self) -> list[Any]:
        """Everything it was ever assigned, in order."""
        with self._changed:
            return [event["assigned"] for event in self.events if "assigned" in event]

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until `condition()`, looked at whenever the member says something."""
        deadline_s = time.monotonic() + WAIT_S
        while not condition():
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, f"{self} has not {what}"
            assert self._process.poll() is None or condition(), f"{self} ended"
            with self._changed:
                self._changed.wait(min(left_s, 0.05))

    def wait_for_event(self, name: str) -> None:
        """Wait until it has printed an event called `name`."""
        self.wait_for(lambda: any(name in event for event in self.events), name)

    def wait_for_records(self, count: int) -> None:
        """Wait until it has processed at least so many records."""
        self.wait_for(lambda: len(self.processed) >= count, f"processed {count} records")

    # ---- what is done to it

    def kill9(self) -> None:
        """A crash: it sends nothing any more, and does not leave its group."""
        self._process.kill()
        self._end()

    def stop(self) -> None:
        """Let it close its consumer, and leave its group."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        assert self._process.wait(WAIT_S) == 0, f"{self} failed"
        self._end()

    def freeze(self) -> None:
        """Let it stand still, with its connections open."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        self._process.send_signal(signal.SIGCONT)

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def _end(self) -> None:
        self._process.wait(WAIT_S)
        for reader in self._readers:
            reader.join(WAIT_S)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    # ---- its output

    def _read(self, stream: Any, take: Callable[[str], dict[str, Any] | None]) -> None:
        for line in stream:
            event = take(line)
            with self._changed:
                if event is not None:
                    self.events.append(event)
                self._changed.notify_all()

    def _line(self, line: str) -> dict[str, Any] | None:
        event: dict[str, Any] = json.loads(line)
        return event

    def _error_line(self, line: str) -> dict[str, Any] | None:
        self.errors.append(line)
        return None

    def __repr__(self) -> str:
        said = "".join(self.errors[-20:])
        return f"{self.name} (events: {self.events[-10:]}, errors: {said})"


class KcatMember(Member):
    """kcat -G; its stderr tells of rebalances, its stdout of records."""

    _REBALANCED = re.compile(
        r"% Group .* rebalanced \(.*\): (assigned|revoked|incremental .*): ?(.*)"
    )
    _PARTITION = re.compile(r"(\S+) \[(\d+)\]")

    @classmethod
    def start_kcat(
        cls,
        address: str,
        group: str,
        *,
        topics: Iterable[str],
        strategy: str = "range",
        session_timeout_ms: int = 2_000,
        **_ignored: Any,
    ) -> Member:
        from tests.e2e.clients import Kcat

        options = {
            "auto.offset.reset": "earliest",
            "partition.assignment.strategy": strategy,
            "session.timeout.ms": session_timeout_ms,
            "heartbeat.interval.ms": session_timeout_ms // 8,
            "fetch.wait.max.ms": 100,
        }
        command = [Kcat.program(), "-b", address, "-u", "-f", r"%t %p %o %s\n"]
        for name, value in options.items():
            command += ["-X", f"{name}={value}"]
        return cls([*command, "-G", group, *topics], name="kcat")

    def stop(self) -> None:
        self._process.terminate()
        self._end()

    def _line(self, line: str) -> dict[str, Any] | None:
        topic, partition, offset, value = line.rstrip("\n").split(" ", 3)
        return {"processed": [topic, int(partition), int(offset), value]}

    def _error_line(self, line: str) -> dict[str, Any] | None:
        super()._error_line(line)
        match = self._REBALANCED.match(line)
        if match is None:
            return None
        partitions = [] if match[1] == "revoked" else self._PARTITION.findall(match[2])
        return {"assigned": sorted((topic, int(number)) for topic, number in partitions)}


def everything(topic: str, partitions: int) -> set[Partition]:
    """All partitions of a topic."""
    return {(topic, number) for number in range(partitions)}


def wait_until_shared(members: Iterable[Member], partitions: set[Partition]) -> None:
    """Wait until the members own `partitions` together, none of them twice, and each some."""
    members = list(members)

    def is_shared() -> bool:
        owned = [member.assigned or set() for member in members]
        return (
            set().union(*owned) == partitions
            and sum(map(len, owned)) == len(partitions)
            and all(owned)
        )

    deadline_s = time.monotonic() + WAIT_S
    while not is_shared():
        assert time.monotonic() < deadline_s, f"not shared: {members}"
        for member in members:
            assert member.runs, f"{member} ended"
        time.sleep(0.02)
