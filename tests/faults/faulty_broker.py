"""A broker process whose disk, clock and file descriptors a test can bend."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.e2e.broker_process import BrokerProcess
from tests.faults.client import Client
from trioq.storage.verify import verify_dir

PATIENCE_S = 30.0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that the broker does by itself."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"it did not come: {what}"
        time.sleep(0.01)


class FaultyBroker(BrokerProcess):
    """See launcher.py for what it can be told, and faulty_disk.py for the rules."""

    def __init__(
        self, directory: Path, *, data_dirs: Sequence[Path] = (), **arguments: Any
    ) -> None:
        super().__init__(directory, **arguments)
        self.control = directory / "control"
        self.control.mkdir(parents=True)
        self.data_dirs = list(data_dirs) or [self.data_dir]
        self.data_dir = self.data_dirs[0]
        self._clients: list[Client] = []

    def command(self) -> list[str]:
        _, *rest = super().command()
        at = rest.index("--data-dir")
        del rest[at : at + 2]
        for path in self.data_dirs:
            rest += ["--data-dir", str(path)]
        return [sys.executable, "-m", "tests.faults.launcher", str(self.control), *rest]

    def client(self, **options: Any) -> Client:
        """A connection of its own, closed when the broker has ended."""
        client = Client((self.host, self.port), **options)
        self._clients.append(client)
        return client

    def _forget(self) -> None:
        super()._forget()
        for client in self._clients:
            client.close()
        self._clients.clear()

    # ---- bending its world

    def arm(self, *rules: Mapping[str, Any]) -> None:
        """These rules are in force from now on, and no others."""
        self._put("rules.json", json.dumps(rules))

    def heal(self) -> None:
        (self.control / "rules.json").unlink(missing_ok=True)

    def set_clock(self, offset_ms: int) -> None:
        """The broker's wall clock goes by this much ahead of ours, from now on."""
        self._put("clock_ms", str(offset_ms))

    def limit_descriptors(self, count: int) -> None:
        """From the next start on."""
        self._put("max_descriptors", str(count))

    def _put(self, name: str, text: str) -> None:
        temporary = self.control / f"{name}.new"
        temporary.write_text(text)
        temporary.replace(self.control / name)

    # ---- how it ends

    def stop_sound(self, *, may_repair: bool = False) -> None:
        """Stop cleanly; no record is damaged, and no derived file unless it `may_repair`."""
        assert self.terminate() == 0
        for path in self.data_dirs:
            report = verify_dir(path)
            assert report.is_sound, report.problems
            assert may_repair or not report.problems, report.problems

    def wait_killed(self) -> None:
        """The armed fault point was reached: the process is gone, by SIGKILL."""
        assert self.wait() == -9

    def refusal(self) -> str:
        """Start where it has to refuse: the one sentence that it prints."""
        done = subprocess.run(
            self.command(),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            env={**os.environ, **self.environment},
        )
        assert done.returncode == 1, done
        assert done.stdout == "", "it got ready"
        sentences = [line for line in done.stderr.splitlines() if line.startswith("trioq: ")]
        assert len(sentences) == 1, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return sentences[0]

    def events(self, name: str) -> list[dict[str, Any]]:
        """Log lines of that event."""
        return [line for line in self.log_lines() if line.get("event") == name]
