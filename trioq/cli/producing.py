"""How `trioq produce` sends: chunks of input become records, acknowledged some chunks behind."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import anyio

from trioq.cli.progress import Progress
from trioq.cli.record_input import (
    Headers,
    InputRecord,
    JsonLines,
    LineSplitter,
    TextLines,
)
from trioq.cli.running import Interruption, read_from
from trioq.cli.target import Target
from trioq.client.producer import Producer
from trioq.client.producer_settings import Acks, Compression
from trioq.client.tasks import BackgroundTasks
from trioq.errors import BufferFull, TrioqError

_CHUNK_BYTES: Final = 256 * 1024
_CHUNKS_AHEAD: Final = 16
"""How many chunks may be sent and not acknowledged yet."""

_MAX_REQUEST_BYTES: Final = 32 * 1024 * 1024
"""The broker says which records are too large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProduceJob:
    """What to send where; `lines` says how the input is to be read."""

    topic: str
    descriptor: int
    lines: TextLines | JsonLines
    headers: Headers
    partition: int | None
    acks: Acks
    compression: Compression


class Producing:
    """One run of `trioq produce`."""

    def __init__(self, job: ProduceJob, target: Target) -> None:
        self._job = job
        self._target = target
        self._failure: TrioqError | None = None
        self._ahead: anyio.Semaphore
        self._reading: anyio.CancelScope

    async def run(self, interruption: Interruption) -> None:
        """Send until the input ends or a signal comes, and wait for the acknowledgements.

        Raises InputError, and what sending raises; what was read before that is sent.
        """
        job = self._job
        self._ahead, self._reading = anyio.Semaphore(_CHUNKS_AHEAD), anyio.CancelScope()
        async with self._target.client() as client:
            await client.cluster.metadata.topic(job.topic, may_create=True)
            async with client.producer(
                acks=job.acks,
                compression=job.compression,
                max_request_bytes=_MAX_REQUEST_BYTES,
                delivery_timeout_ms=self._target.timeout_ms,
            ) as producer:
                await self._send_all(producer, interruption)

    async def _send_all(self, producer: Producer[Any, Any], interruption: Interruption) -> None:
        progress = Progress(self._job.descriptor, lambda: producer.statistics().records_written)
        async with BackgroundTasks() as tasks:
            if progress.is_shown:
                tasks.start_soon(progress.run)
            with interruption.ending_early(), self._reading:
                splitter, ended = LineSplitter(), False
                while not ended:
                    chunk = await read_from(self._job.descriptor, _CHUNK_BYTES)
                    progress.read_bytes += len(chunk)
                    ended = not chunk
                    lines = splitter.finish() if ended else splitter.feed(chunk)
                    if lines:
                        await self._send_chunk(producer, lines, tasks)
            for _ in range(_CHUNKS_AHEAD):
                await self._ahead.acquire()
        if self._failure is not None:
            raise self._failure

    async def _send_chunk(
        self, producer: Producer[Any, Any], lines: Sequence[bytes], tasks: BackgroundTasks
    ) -> None:
        await self._ahead.acquire()
        is_handed_on = False
        try:
            tasks.start_soon(self._settle, await self._send(producer, lines))
            is_handed_on = True
        finally:
            if not is_handed_on:
                self._ahead.release()

    async def _settle(self, deliveries: Sequence[Awaitable[object]]) -> None:
        """Wait until a chunk is acknowledged; a failure ends the reading."""
        for delivery in deliveries:
            try:
                await delivery
            except TrioqError as error:
                self._failure = self._failure or error
                self._reading.cancel()
        self._ahead.release()

    async def _send(
        self, producer: Producer[Any, Any], lines: Sequence[bytes]
    ) -> Sequence[Awaitable[object]]:
        job = self._job
        if isinstance(job.lines, JsonLines):
            records = job.lines.records(lines)
        else:
            keys, values = job.lines.columns(lines)
            if not job.headers:
                return [
                    await producer.send_many(job.topic, values, keys=keys, partition=job.partition)
                ]
            records = [
                InputRecord(key, value)
                for key, value in zip(keys or [None] * len(values), values, strict=True)
            ]
        return [await self._queue(producer, record) for record in records]

    async def _queue(self, producer: Producer[Any, Any], record: InputRecord) -> Awaitable[object]:
        while True:
            try:
                return producer.send_nowait(
                    self._job.topic,
                    record.value,
                    key=record.key,
                    headers=self._job.headers + record.headers,
                    partition=self._job.partition if record.partition is None else record.partition,
                    timestamp_ms=record.timestamp_ms,
                )
            except BufferFull:
                await producer.flush()
