"""A well-behaved client beside those that are not: it has to get on, in order, all the time."""

from __future__ import annotations

import threading
import time
from typing import Self

from tests.faults.faulty_broker import FaultyBroker, wait_until


class Neighbour:
    """Writes one small record and reads it back, over and over, on a connection of its own."""

    def __init__(self, broker: FaultyBroker, topic: str = "neighbour") -> None:
        self._client = broker.client()
        self._topic = topic
        self._client.create(topic)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self.rounds_s: list[float] = []
        """How long each round took."""

    def __enter__(self) -> Self:
        self._thread.start()
        self.gets_on(5)
        self.rounds_s.clear()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        if exc == (None, None, None):
            assert self._error is None, self._error
            print(f"neighbour: {len(self.rounds_s)} rounds, p99 {self.p99_ms():.1f} ms")

    def _run(self) -> None:
        offset = 0
        try:
            while not self._stop.is_set():
                began_s = time.perf_counter()
                value = b"%d" % offset
                assert self._client.produce(self._topic, [value]) == (0, offset)
                found = self._client.fetch(self._topic, offset, max_wait_ms=1000)
                assert found.error_code == 0
                assert found.values == [value]
                offset += 1
                self.rounds_s.append(time.perf_counter() - began_s)
                self._stop.wait(0.002)
        except BaseException as error:
            self._error = error

    def gets_on(self, rounds: int = 30) -> None:
        """Wait until it has done so many more rounds; fails if it does not."""
        target = len(self.rounds_s) + rounds

        def done() -> bool:
            assert self._error is None, self._error
            return len(self.rounds_s) >= target

        wait_until(done, "the well-behaved client gets on")

    def p99_ms(self) -> float:
        ordered = sorted(self.rounds_s)
        return ordered[int(len(ordered) * 0.99)] * 1000 if ordered else 0.0
