"""Writes to all partitions of a topic, again and again, and notes when each was acknowledged."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from itertools import pairwise
from types import TracebackType
from typing import Self

from bench.errors import BenchError
from bench.path.ask import Asker
from bench.path.process import BrokerProcess
from trioq.record.builder import build_batch
from trioq.wire.api_keys import ApiKey
from trioq.wire.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponse
from trioq.wire.messages.produce import (
    ProduceRequest,
    ProduceRequestPartition,
    ProduceRequestTopic,
    ProduceResponse,
)

PAUSE_S = 0.02
METADATA_EACH_S = 0.04
ACKS_TIMEOUT_MS = 1000


class Watcher:
    """A thread per broker that writes with acks=all to what that broker leads, as it says itself.

    `acknowledged[p]` are the times of partition p's acknowledgements. Use it in a `with`.
    """

    def __init__(self, brokers: Mapping[int, BrokerProcess], topic: str, partitions: int) -> None:
        self.acknowledged: list[list[float]] = [[] for _ in range(partitions)]
        self._topic = topic
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number, broker), daemon=True)
            for number, broker in brokers.items()
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def wait_until_all(self, since_s: float, timeout_s: float) -> None:
        """Return when every partition was acknowledged after `since_s`; else BenchError."""
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            if all(times and times[-1] > since_s for times in self.acknowledged):
                return
            time.sleep(0.01)
        behind = sum(1 for times in self.acknowledged if not times or times[-1] <= since_s)
        raise BenchError(f"{behind} partitions take no writes after {timeout_s:.0f} s")

    def first_after(self, since_s: float) -> list[float]:
        """For each partition, how long after `since_s` its first acknowledgement came."""
        return [
            next(one for one in times if one > since_s) - since_s for times in self.acknowledged
        ]

    def longest_gaps(self, since_s: float) -> list[float]:
        """For each partition, the longest time without an acknowledgement from `since_s` on."""
        gaps = []
        for times in self.acknowledged:
            later = [one for one in times if one >= since_s]
            before = [one for one in times if one < since_s][-1:]
            known = before + later
            gaps.append(max(b - a for a, b in pairwise(known)))
        return gaps

    def _run(self, number: int, broker: BrokerProcess) -> None:
        while not self._ending.is_set():
            try:
                with Asker(broker) as asker:
                    self._write(number, asker)
            except BenchError:
                self._ending.wait(0.05)  # it is down

    def _write(self, number: int, asker: Asker) -> None:
        led: list[int] = []
        asked_s = 0.0
        while not self._ending.is_set():
            now_s = time.monotonic()
            if now_s - asked_s > METADATA_EACH_S:
                led, asked_s = self._led_by(number, asker), now_s
            if led:
                refused = self._produce(asker, led)
                if refused:
                    asked_s = 0.0
            self._ending.wait(PAUSE_S)

    def _led_by(self, number: int, asker: Asker) -> list[int]:
        topics = [MetadataRequestTopic(name=self._topic)]
        response = asker.ask(ApiKey.METADATA, MetadataRequest(topics=topics), MetadataResponse)
        return [
            one.partition_index for one in response.topics[0].partitions if one.leader_id == number
        ]

    def _produce(self, asker: Asker, partitions: list[int]) -> int:
        """Write one record to each; how many were refused."""
        batch = bytes(build_batch([(int(time.time() * 1000), None, b"x", ())]))
        data = [ProduceRequestPartition(index=one, records=batch) for one in partitions]
        request = ProduceRequest(
            acks=-1,
            timeout_ms=ACKS_TIMEOUT_MS,
            topic_data=[ProduceRequestTopic(name=self._topic, partition_data=data)],
        )
        response = asker.ask(ApiKey.PRODUCE, request, ProduceResponse)
        now_s, refused = time.monotonic(), 0
        for one in response.responses[0].partition_responses:
            if one.error_code:
                refused += 1
            else:
                self.acknowledged[one.index].append(now_s)
        return refused
